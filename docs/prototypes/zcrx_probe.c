// Whether an interface lets io_uring receive into memory of the process without a copy (Linux 6.15):
// asks for a queue of it and prints what the kernel answers. Part of docs/kernel-bypass.md.
//
//   zcrx_probe INTERFACE QUEUE

#include <errno.h>
#include <linux/io_uring.h>
#include <net/if.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

// From the kernel's include/uapi/linux/io_uring.h, which Debian 12's headers are older than.
enum { REGISTER_ZCRX_IFQ = 32, MEM_REGION_TYPE_USER = 1, AREA_BYTES = 1 << 20 };
enum { SETUP_SINGLE_ISSUER = 1 << 12, SETUP_DEFER_TASKRUN = 1 << 13, SETUP_CQE32 = 1 << 11 };

struct Area {
    uint64_t address, bytes, token;
    uint32_t flags, dmabuf;
    uint64_t reserved[2];
};

struct Region {
    uint64_t address, bytes;
    uint32_t flags, id;
    uint64_t offset, reserved[4];
};

struct Queue {
    uint32_t interface, queue, entries, flags;
    uint64_t area, region;
    struct {
        uint32_t head, tail, entries, reserved;
        uint64_t more[2];
    } offsets;
    uint32_t id, reserved;
    uint64_t more[3];
};

int main(int count, char **arguments) {
    if (count != 3 || !if_nametoindex(arguments[1])) {
        fprintf(stderr, "usage: zcrx_probe INTERFACE QUEUE\n");
        return 2;
    }
    struct io_uring_params setup = {
        .flags = SETUP_SINGLE_ISSUER | SETUP_DEFER_TASKRUN | SETUP_CQE32};
    int ring = syscall(SYS_io_uring_setup, 8, &setup);
    void *area = mmap(NULL, AREA_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    void *refill = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (ring < 0 || area == MAP_FAILED || refill == MAP_FAILED) {
        perror("set-up");
        return 1;
    }
    struct Area memory = {.address = (uintptr_t)area, .bytes = AREA_BYTES};
    struct Region region = {
        .address = (uintptr_t)refill, .bytes = 8192, .flags = MEM_REGION_TYPE_USER};
    struct Queue queue = {
        .interface = if_nametoindex(arguments[1]),
        .queue = atoi(arguments[2]),
        .entries = 256,
        .area = (uintptr_t)&memory,
        .region = (uintptr_t)&region,
    };
    int outcome = syscall(SYS_io_uring_register, ring, REGISTER_ZCRX_IFQ, &queue, 1);
    printf("IORING_REGISTER_ZCRX_IFQ on %s, queue %s: %s\n", arguments[1], arguments[2],
           outcome < 0 ? strerror(errno) : "granted");
    return outcome < 0;
}
