/* The Paho C client of tests/interop: paho_c_client SCENARIO URL. Exits non-zero with a message on failure.
 * RINGMQ_CA names the file with the certificate of the trusted authority. */
#include <MQTTClient.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATIENCE_MS 10000
#define RETAINED 60
#define LARGE 200000

static const char *url;

static void fail(const char *what, int code)
{
    fprintf(stderr, "%s: %d\n", what, code);
    exit(1);
}

static void check(const char *what, int code)
{
    if (code != MQTTCLIENT_SUCCESS)
        fail(what, code);
}

static int try_connect(MQTTClient *client, const char *name, const char *user, const char *password)
{
    MQTTClient_connectOptions options = MQTTClient_connectOptions_initializer;
    MQTTClient_SSLOptions tls = MQTTClient_SSLOptions_initializer;
    check("create", MQTTClient_create(client, url, name, MQTTCLIENT_PERSISTENCE_NONE, NULL));
    options.keepAliveInterval = 20;
    options.cleansession = 1;
    options.connectTimeout = 10;
    options.username = user;
    options.password = password;
    if (getenv("RINGMQ_CA") != NULL) {
        tls.trustStore = getenv("RINGMQ_CA");
        tls.enableServerCertAuth = 1;
        options.ssl = &tls;
    }
    return MQTTClient_connect(*client, &options);
}

static MQTTClient connected(const char *name)
{
    MQTTClient client;
    check("connect", try_connect(&client, name, NULL, NULL));
    return client;
}

static void end(MQTTClient client)
{
    check("disconnect", MQTTClient_disconnect(client, 1000));
    MQTTClient_destroy(&client);
}

static void publish(MQTTClient client, const char *topic, int bytes, const void *payload, int qos, int retained)
{
    MQTTClient_deliveryToken token;
    check("publish", MQTTClient_publish(client, topic, bytes, payload, qos, retained, &token));
    check("wait", MQTTClient_waitForCompletion(client, token, PATIENCE_MS));
}

/* The payload length of the next message, which must equal `payload` unless that is NULL. */
static int received(MQTTClient client, const char *payload)
{
    char *topic = NULL;
    int topic_bytes, bytes;
    MQTTClient_message *message = NULL;
    check("receive", MQTTClient_receive(client, &topic, &topic_bytes, &message, PATIENCE_MS));
    if (message == NULL)
        fail("no message came", 0);
    bytes = message->payloadlen;
    if (payload != NULL && ((size_t)bytes != strlen(payload) || memcmp(message->payload, payload, bytes) != 0))
        fail("another payload", bytes);
    MQTTClient_freeMessage(&message);
    MQTTClient_free(topic);
    return bytes;
}

/* Many messages at once for a client that has just subscribed. */
static void many_retained(void)
{
    char topic[32];
    int number;
    MQTTClient publisher = connected("c-publisher"), subscriber;
    for (number = 0; number < RETAINED; number++) {
        snprintf(topic, sizeof topic, "retained/%d", number);
        publish(publisher, topic, 2, "on", 1, 1);
    }
    subscriber = connected("c-subscriber");
    check("subscribe", MQTTClient_subscribe(subscriber, "retained/#", 0));
    for (number = 0; number < RETAINED; number++)
        received(subscriber, "on");
    end(subscriber);
    end(publisher);
}

static void every_qos(void)
{
    int granted, sent;
    MQTTClient publisher = connected("c-publisher");
    for (granted = 0; granted <= 2; granted++) {
        MQTTClient subscriber = connected("c-subscriber");
        check("subscribe", MQTTClient_subscribe(subscriber, "qos/#", granted));
        for (sent = 0; sent <= 2; sent++) {
            publish(publisher, "qos/x", 5, "there", sent, 0);
            received(subscriber, "there");
        }
        end(subscriber);
    }
    end(publisher);
}

static void large(void)
{
    char *payload = calloc(LARGE, 1);
    MQTTClient client = connected("c-large");
    check("subscribe", MQTTClient_subscribe(client, "large", 1));
    publish(client, "large", LARGE, payload, 1, 0);
    if (received(client, NULL) != LARGE)
        fail("another length", 0);
    free(payload);
    end(client);
}

static void wrong_password(void)
{
    MQTTClient client;
    int code = try_connect(&client, "c-wrong", "alice", "wrong");
    if (code != 4 && code != 5)
        fail("it was let in", code);
    MQTTClient_destroy(&client);
}

int main(int count, char **arguments)
{
    if (count != 3)
        fail("paho_c_client SCENARIO URL", count);
    url = arguments[2];
    if (strcmp(arguments[1], "many_retained") == 0)
        many_retained();
    else if (strcmp(arguments[1], "every_qos") == 0)
        every_qos();
    else if (strcmp(arguments[1], "large") == 0)
        large();
    else if (strcmp(arguments[1], "wrong_password") == 0)
        wrong_password();
    else
        fail("no such scenario", 0);
    return 0;
}
