/* Delay and reordering of packets where the kernel has no netem: carries frames between two network devices, each after a time of its
 * own, so that they overtake each other.
 *
 *   delay ONE OTHER LEAST_MS MOST_MS
 *
 * Both devices must be without address and bridge, and let no kernel answer on them (`ip link set ... arp off`). Frames keep what the
 * kernel knows of them (checksums still to be made, segments still to be cut), which goes with them in a header. After SIGTERM what still
 * waits is sent at once, and one line says what was done:
 *
 *   delayed FRAMES overtaken FRAMES lost FRAMES */

#define _GNU_SOURCE
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <arpa/inet.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* Frames that may wait; more are lost, as in a router. */
#define MOST 32768
/* A frame of the largest segments, with the header. */
#define LONGEST (66 * 1024)

struct frame {
    int64_t due;
    uint64_t number;
    size_t length;
    int to;
    unsigned char bytes[];
};

/* A heap: the one that is due first is at its top. */
static struct frame *waiting[MOST];
static size_t count;
/* For each way: the number of the latest frame that was sent. */
static uint64_t latest[2];
static uint64_t delayed, overtaken, lost;
static volatile sig_atomic_t over;

static void end(int signal) {
    (void)signal;
    over = 1;
}

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void fail(const char *what) {
    fprintf(stderr, "delay: %s: %s\n", what, strerror(errno));
    exit(2);
}

static int earlier(size_t a, size_t b) {
    return waiting[a]->due < waiting[b]->due;
}

static void swap(size_t a, size_t b) {
    struct frame *held = waiting[a];
    waiting[a] = waiting[b];
    waiting[b] = held;
}

static void push(struct frame *frame) {
    size_t at = count++;
    waiting[at] = frame;
    while (at > 0 && earlier(at, (at - 1) / 2)) {
        swap(at, (at - 1) / 2);
        at = (at - 1) / 2;
    }
}

static struct frame *pop(void) {
    struct frame *first = waiting[0];
    waiting[0] = waiting[--count];
    size_t at = 0;
    for (;;) {
        size_t least = at;
        for (size_t below = 2 * at + 1; below <= 2 * at + 2 && below < count; below++)
            if (earlier(below, least))
                least = below;
        if (least == at)
            return first;
        swap(at, least);
        at = least;
    }
}

static int attach(const char *device) {
    /* Without a protocol nothing comes before the device is named. */
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        fail("socket");
    int on = 1, room = 32 << 20;
    if (setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof on))
        fail("PACKET_VNET_HDR");
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room) ||
        setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof room))
        fail("socket buffers");
    struct sockaddr_ll at = {
        .sll_family = AF_PACKET,
        .sll_protocol = htons(ETH_P_ALL),
        .sll_ifindex = (int)if_nametoindex(device),
    };
    if (at.sll_ifindex == 0 || bind(fd, (struct sockaddr *)&at, sizeof at))
        fail(device);
    return fd;
}

/* Takes in what has come on one device. */
static void take(int fd, int to, int64_t least, int64_t most) {
    static unsigned char bytes[LONGEST];
    static uint64_t number;
    for (;;) {
        struct sockaddr_ll from;
        socklen_t length = sizeof from;
        ssize_t got = recvfrom(fd, bytes, sizeof bytes, MSG_TRUNC, (struct sockaddr *)&from, &length);
        if (got < 0) {
            if (errno == EINTR)
                continue;
            if (errno == EAGAIN)
                return;
            fail("recvfrom");
        }
        /* What this program itself has sent is seen too. */
        if (from.sll_pkttype == PACKET_OUTGOING)
            continue;
        struct frame *frame = NULL;
        if (count < MOST && (size_t)got <= sizeof bytes)
            frame = malloc(sizeof *frame + (size_t)got);
        if (!frame) {
            lost++;
            continue;
        }
        frame->due = now() + least + (int64_t)(drand48() * (double)(most - least));
        frame->number = ++number;
        frame->length = (size_t)got;
        frame->to = to;
        memcpy(frame->bytes, bytes, (size_t)got);
        push(frame);
    }
}

/* Sends what is due, or all. */
static void give(const int fds[2], int all) {
    while (count && (all || waiting[0]->due <= now())) {
        struct frame *frame = pop();
        int to = frame->to;
        if (send(fds[to], frame->bytes, frame->length, 0) == (ssize_t)frame->length) {
            delayed++;
            if (frame->number < latest[to])
                overtaken++;
            else
                latest[to] = frame->number;
        } else {
            lost++;
        }
        free(frame);
    }
}

int main(int argc, char **argv) {
    if (argc != 5) {
        fprintf(stderr, "usage: delay ONE OTHER LEAST_MS MOST_MS\n");
        return 2;
    }
    int64_t least = atoll(argv[3]) * 1000000, most = atoll(argv[4]) * 1000000;
    if (least < 0 || most <= least) {
        fprintf(stderr, "delay: expected 0 <= LEAST_MS < MOST_MS\n");
        return 2;
    }
    struct sigaction action = {.sa_handler = end};
    sigaction(SIGTERM, &action, NULL);
    srand48(getpid());
    int fds[2] = {attach(argv[1]), attach(argv[2])};
    puts("ready");
    fflush(stdout);
    while (!over) {
        give(fds, 0);
        int64_t wait = count ? waiting[0]->due - now() : 100000000;
        struct timespec time = {.tv_nsec = wait < 0 ? 0 : wait > 100000000 ? 100000000 : wait};
        struct pollfd ready[2] = {{.fd = fds[0], .events = POLLIN}, {.fd = fds[1], .events = POLLIN}};
        if (ppoll(ready, 2, &time, NULL) < 0 && errno != EINTR)
            fail("ppoll");
        for (int at = 0; at < 2; at++)
            take(fds[at], 1 - at, least, most);
    }
    give(fds, 1);
    printf("delayed %llu overtaken %llu lost %llu\n", (unsigned long long)delayed, (unsigned long long)overtaken,
           (unsigned long long)lost);
    return 0;
}
