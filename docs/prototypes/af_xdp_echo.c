// What a datagram there and back costs through AF_XDP and through a socket: the prototype behind
// docs/kernel-bypass.md. `./measure` builds and runs it between two network namespaces of its own.
//
//   af_xdp_echo load ADDRESS PORT DATAGRAMS      sends, 32 at a time, and counts what comes back
//   af_xdp_echo socket PORT                      echoes by recvmmsg(2) and sendmmsg(2)
//   af_xdp_echo xdp INTERFACE skb|drv            echoes by an AF_XDP socket in copy mode
//
// Each prints its own CPU time for each datagram; an echo ends when nothing came for a second.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/bpf.h>
#include <linux/if_link.h>
#include <linux/if_xdp.h>
#include <net/if.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 32, BYTES = 96, FRAMES = 4096, FRAME_BYTES = 2048, RING = 2048, IDLE_MS = 1000 };

static void fail(const char *what) {
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

static int checked(int result, const char *what) {
    if (result < 0) fail(what);
    return result;
}

static double cpu_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return now.tv_sec * 1e6 + now.tv_nsec / 1e3;
}

static void report(const char *who, long count, double began_us) {
    double each = count ? (cpu_us() - began_us) / count : 0;
    printf("%s %ld datagrams, %.3f us of CPU each\n", who, count, each);
}

// Sockets ------------------------------------------------------------------------------------

struct Datagrams {
    struct mmsghdr headers[BATCH];
    struct iovec slices[BATCH];
    struct sockaddr_in peers[BATCH];
    char bytes[BATCH][FRAME_BYTES];
};

static struct Datagrams datagrams;

static void prepare(int bytes, int with_peers) {
    for (int n = 0; n < BATCH; n++) {
        struct msghdr *header = &datagrams.headers[n].msg_hdr;
        datagrams.slices[n] = (struct iovec){datagrams.bytes[n], bytes};
        *header = (struct msghdr){.msg_iov = &datagrams.slices[n], .msg_iovlen = 1};
        if (with_peers) {
            header->msg_name = &datagrams.peers[n];
            header->msg_namelen = sizeof datagrams.peers[n];
        }
    }
}

static int udp(void) {
    int on = 1, bytes = 4 << 20;
    int fd = checked(socket(AF_INET, SOCK_DGRAM, 0), "socket");
    // Without checksums: AF_XDP would have to compute those that a device leaves out.
    checked(setsockopt(fd, SOL_SOCKET, SO_NO_CHECK, &on, sizeof on), "SO_NO_CHECK");
    checked(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes), "SO_RCVBUF");
    return fd;
}

static void load(const char *address, int port, long count) {
    int fd = udp();
    struct timeval patience = {.tv_usec = 200000};
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, address, &to.sin_addr);
    checked(connect(fd, (struct sockaddr *)&to, sizeof to), "connect");
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    double began = cpu_us();
    long sent = 0, back = 0;
    while (sent < count) {
        prepare(BYTES, 0);
        int went = checked(sendmmsg(fd, datagrams.headers, BATCH, 0), "sendmmsg");
        sent += went;
        for (int left = went; left > 0;) {
            prepare(FRAME_BYTES, 0);
            int came = recvmmsg(fd, datagrams.headers, left, MSG_WAITFORONE, NULL);
            if (came <= 0) break;
            left -= came;
            back += came;
        }
    }
    report("load:  ", back, began);
    if (back != sent) printf("load:   %ld were lost\n", sent - back);
}

static void echo_socket(int port) {
    int fd = udp();
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
    checked(bind(fd, (struct sockaddr *)&at, sizeof at), "bind");
    long count = 0;
    double began = cpu_us();
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    while (poll(&ready, 1, count ? IDLE_MS : 10 * IDLE_MS) > 0) {
        prepare(FRAME_BYTES, 1);
        int came = checked(recvmmsg(fd, datagrams.headers, BATCH, MSG_DONTWAIT, NULL), "recvmmsg");
        for (int n = 0; n < came; n++) datagrams.slices[n].iov_len = datagrams.headers[n].msg_len;
        checked(sendmmsg(fd, datagrams.headers, came, 0), "sendmmsg");
        count += came;
    }
    report("socket:", count, began);
}

// AF_XDP -------------------------------------------------------------------------------------

static int bpf(int command, union bpf_attr *attributes, const char *what) {
    return checked(syscall(SYS_bpf, command, attributes, sizeof *attributes), what);
}

// A program of six instructions: everything goes to the socket of the queue it came through.
static void redirect_all(int interface, int socket, unsigned flags) {
    union bpf_attr map = {
        .map_type = BPF_MAP_TYPE_XSKMAP, .key_size = 4, .value_size = 4, .max_entries = 1};
    int map_fd = bpf(BPF_MAP_CREATE, &map, "XSKMAP");
    int queue = 0;
    union bpf_attr entry = {
        .map_fd = map_fd, .key = (uintptr_t)&queue, .value = (uintptr_t)&socket};
    bpf(BPF_MAP_UPDATE_ELEM, &entry, "XSKMAP entry");
    struct bpf_insn program[] = {
        // r2 = context->rx_queue_index
        {BPF_LDX | BPF_MEM | BPF_W, BPF_REG_2, BPF_REG_1, 16, 0},
        // r1 = the map
        {BPF_LD | BPF_DW | BPF_IMM, BPF_REG_1, BPF_PSEUDO_MAP_FD, 0, map_fd},
        {0, 0, 0, 0, 0},
        // r3 = what else: XDP_PASS
        {BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_3, 0, 0, XDP_PASS},
        {BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_redirect_map},
        {BPF_JMP | BPF_EXIT, 0, 0, 0, 0},
    };
    union bpf_attr load = {
        .prog_type = BPF_PROG_TYPE_XDP,
        .insns = (uintptr_t)program,
        .insn_cnt = sizeof program / sizeof *program,
        .license = (uintptr_t) "Dual MIT/GPL",
    };
    int program_fd = bpf(BPF_PROG_LOAD, &load, "program");
    union bpf_attr link = {.link_create = {
        .prog_fd = program_fd, .target_ifindex = interface, .attach_type = BPF_XDP, .flags = flags}};
    // Detached when this process ends, as nobody else holds the link.
    bpf(BPF_LINK_CREATE, &link, "attach");
}

struct Ring {
    uint32_t *producer, *consumer;
    void *entries;
};

static struct Ring ring(int fd, const struct xdp_ring_offset *at, size_t entry, off_t which) {
    char *base = mmap(NULL, at->desc + RING * entry, PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_POPULATE, fd, which);
    if (base == MAP_FAILED) fail("mmap of a ring");
    return (struct Ring){(void *)(base + at->producer), (void *)(base + at->consumer),
                         base + at->desc};
}

static uint32_t seen(const uint32_t *at) { return __atomic_load_n(at, __ATOMIC_ACQUIRE); }
static void told(uint32_t *at, uint32_t value) { __atomic_store_n(at, value, __ATOMIC_RELEASE); }

static void swap(char *one, char *other, int bytes) {
    char kept[8];
    memcpy(kept, one, bytes);
    memcpy(one, other, bytes);
    memcpy(other, kept, bytes);
}

// Ethernet, IPv4 without options, UDP: back to where it came from.
static void turn_round(char *frame) {
    swap(frame, frame + 6, 6);
    swap(frame + 26, frame + 30, 4);
    swap(frame + 34, frame + 36, 2);
}

static void echo_xdp(const char *name, unsigned flags) {
    int interface = if_nametoindex(name);
    if (!interface) fail(name);
    int fd = checked(socket(AF_XDP, SOCK_RAW, 0), "AF_XDP");
    char *memory = mmap(NULL, (size_t)FRAMES * FRAME_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (memory == MAP_FAILED) fail("mmap");
    struct xdp_umem_reg umem = {
        .addr = (uintptr_t)memory, .len = (uint64_t)FRAMES * FRAME_BYTES, .chunk_size = FRAME_BYTES};
    checked(setsockopt(fd, SOL_XDP, XDP_UMEM_REG, &umem, sizeof umem), "XDP_UMEM_REG");
    int options[] = {XDP_UMEM_FILL_RING, XDP_UMEM_COMPLETION_RING, XDP_RX_RING, XDP_TX_RING};
    for (int n = 0; n < 4; n++) {
        int entries = RING;
        checked(setsockopt(fd, SOL_XDP, options[n], &entries, sizeof entries), "ring");
    }
    struct xdp_mmap_offsets at;
    socklen_t length = sizeof at;
    checked(getsockopt(fd, SOL_XDP, XDP_MMAP_OFFSETS, &at, &length), "XDP_MMAP_OFFSETS");
    struct Ring fill = ring(fd, &at.fr, 8, XDP_UMEM_PGOFF_FILL_RING);
    struct Ring done = ring(fd, &at.cr, 8, XDP_UMEM_PGOFF_COMPLETION_RING);
    struct Ring in = ring(fd, &at.rx, sizeof(struct xdp_desc), XDP_PGOFF_RX_RING);
    struct Ring out = ring(fd, &at.tx, sizeof(struct xdp_desc), XDP_PGOFF_TX_RING);
    for (uint32_t n = 0; n < RING; n++) ((uint64_t *)fill.entries)[n] = (uint64_t)n * FRAME_BYTES;
    told(fill.producer, RING);
    struct sockaddr_xdp address = {
        .sxdp_family = AF_XDP, .sxdp_ifindex = interface, .sxdp_flags = XDP_COPY};
    checked(bind(fd, (struct sockaddr *)&address, sizeof address), "bind in copy mode");
    redirect_all(interface, fd, flags);

    long count = 0;
    double began = cpu_us();
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    while (poll(&ready, 1, count ? IDLE_MS : 10 * IDLE_MS) > 0) {
        uint32_t from = *in.consumer, to = seen(in.producer), place = *out.producer;
        for (uint32_t n = from; n != to; n++, place++) {
            struct xdp_desc frame = ((struct xdp_desc *)in.entries)[n & (RING - 1)];
            turn_round(memory + frame.addr);
            ((struct xdp_desc *)out.entries)[place & (RING - 1)] = frame;
        }
        told(out.producer, place);
        told(in.consumer, to);
        count += to - from;
        while (seen(out.consumer) != place) {
            // In copy mode the kernel sends when it is asked to, a bounded number each time.
            if (sendto(fd, NULL, 0, MSG_DONTWAIT, NULL, 0) < 0 && errno != EAGAIN && errno != EBUSY)
                fail("sendto");
        }
        uint32_t sent = *done.consumer, upto = seen(done.producer), free_at = *fill.producer;
        for (; sent != upto; sent++, free_at++) {
            uint64_t frame = ((uint64_t *)done.entries)[sent & (RING - 1)];
            ((uint64_t *)fill.entries)[free_at & (RING - 1)] = frame & ~(uint64_t)(FRAME_BYTES - 1);
        }
        told(done.consumer, upto);
        told(fill.producer, free_at);
    }
    report(flags == XDP_FLAGS_SKB_MODE ? "xdp skb:" : "xdp drv:", count, began);
}

int main(int count, char **arguments) {
    const char *mode = count > 1 ? arguments[1] : "";
    if (count == 5 && !strcmp(mode, "load"))
        load(arguments[2], atoi(arguments[3]), atol(arguments[4]));
    else if (count == 3 && !strcmp(mode, "socket"))
        echo_socket(atoi(arguments[2]));
    else if (count == 4 && !strcmp(mode, "xdp"))
        echo_xdp(arguments[2], strcmp(arguments[3], "drv") ? XDP_FLAGS_SKB_MODE : XDP_FLAGS_DRV_MODE);
    else {
        fprintf(stderr, "usage: see the top of af_xdp_echo.c\n");
        return 2;
    }
    return 0;
}
