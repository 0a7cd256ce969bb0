/* Subscribes, publishes a temperature, and prints what arrives: ./temperature [HOST [PORT]].
 *
 * apt-get install libpaho-mqtt-dev
 * cc -o temperature temperature.c -lpaho-mqtt3c
 */
#include <stdio.h>
#include <stdlib.h>

#include <MQTTClient.h>

static void check(int code, const char *what) {
    if (code != MQTTCLIENT_SUCCESS) {
        fprintf(stderr, "%s failed: %s (%d)\n", what, MQTTClient_strerror(code), code);
        exit(1);
    }
}

int main(int argc, char **argv) {
    char url[300];
    MQTTClient client;
    MQTTClient_connectOptions options = MQTTClient_connectOptions_initializer;
    MQTTClient_message *message = NULL;
    char *topic = NULL;
    int length;

    snprintf(url, sizeof url, "tcp://%s:%s", argc > 1 ? argv[1] : "127.0.0.1", argc > 2 ? argv[2] : "1883");
    check(MQTTClient_create(&client, url, "thermometer-c", MQTTCLIENT_PERSISTENCE_NONE, NULL), "create");
    options.cleansession = 1;
    check(MQTTClient_connect(client, &options), "connect");
    check(MQTTClient_subscribe(client, "house/+/temperature", 1), "subscribe");
    check(MQTTClient_publish(client, "house/kitchen/temperature", 4, "21.5", 1, 0, NULL), "publish");
    check(MQTTClient_receive(client, &topic, &length, &message, 10000), "receive");
    if (message == NULL) {
        fprintf(stderr, "no message within 10 s\n");
        return 1;
    }
    printf("%s %.*s\n", topic, message->payloadlen, (char *)message->payload);
    MQTTClient_freeMessage(&message);
    MQTTClient_free(topic);
    MQTTClient_disconnect(client, 1000);
    MQTTClient_destroy(&client);
    return 0;
}
