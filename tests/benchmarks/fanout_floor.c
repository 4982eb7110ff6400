/* The floor of a broadcast, and its audience.

   fanout_floor serve N           listens, prints its port, takes N clients and then, for each line
                                  "SECONDS HZ BYTES" read, sends BYTES to every client HZ times a second with
                                  a bare loop over send(); answers "DELIVERIES CPU_SECONDS".
   fanout_floor drain PORT N WS [PATH [MESSAGE]]
                                  connects N clients (WS 0: bare; 1: a WebSocket; 2: one that offers
                                  compression) at PATH (/ws), each sends MESSAGE (at most 125 bytes), prints
                                  "ready", then reads and forgets until stdin ends; says for each line read
                                  how many bytes all of them got so far. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static char scratch[1 << 18];

static void fail(const char *what) { perror(what); exit(1); }

static double cpu_seconds(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static struct sockaddr_in loopback(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

static int serve(int clients) {
    int one = 1, *fds = calloc(clients, sizeof *fds), listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = loopback(0);
    socklen_t size = sizeof address;
    if (bind(listener, (void *)&address, size) || listen(listener, 4096)) fail("listen");
    getsockname(listener, (void *)&address, &size);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (int i = 0; i < clients; i++) {
        if ((fds[i] = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) < 0) fail("accept");
        setsockopt(fds[i], IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    }
    double seconds;
    int hz, bytes;
    memset(scratch, 'x', sizeof scratch);
    while (scanf("%lf %d %d", &seconds, &hz, &bytes) == 3) {
        long deliveries = 0, ticks = seconds * hz;
        double before = cpu_seconds();
        struct timespec due;
        clock_gettime(CLOCK_MONOTONIC, &due);
        for (long tick = 0; tick < ticks; tick++) {
            due.tv_nsec += 1000000000L / hz;
            if (due.tv_nsec >= 1000000000L) due.tv_sec++, due.tv_nsec -= 1000000000L;
            while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL) == EINTR) {}
            for (int i = 0; i < clients; i++)
                deliveries += send(fds[i], scratch, bytes, MSG_NOSIGNAL) == bytes;
        }
        printf("%ld %.6f\n", deliveries, cpu_seconds() - before);
        fflush(stdout);
    }
    return 0;
}

static const char *path = "/ws", *message;

static int connect_one(int port, int websocket) {
    int fd = socket(AF_INET, SOCK_STREAM, 0), got = 0;
    struct sockaddr_in address = loopback(port);
    if (connect(fd, (void *)&address, sizeof address)) fail("connect");
    if (websocket > 2) {
        int length = snprintf(scratch, sizeof scratch,
            "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAccept: text/event-stream\r\nCache-Control: no-cache\r\n"
            "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/140.0.0.0 Safari/537.36\r\n%s\r\n",
            path, port, websocket == 4 ? "Accept-Encoding: gzip, deflate, br, zstd\r\n" : "");
        if (send(fd, scratch, length, 0) != length) fail("send");
        while (got < 4 || memcmp(scratch + got - 4, "\r\n\r\n", 4))
            if (recv(fd, scratch + got++, 1, 0) != 1) fail("head");
        if (memcmp(scratch, "HTTP/1.1 200", 12)) fail("status");
    } else if (websocket) {
        int length = snprintf(scratch, sizeof scratch,
            "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/140.0.0.0 Safari/537.36\r\n"
            "Origin: http://127.0.0.1\r\nAccept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en\r\n"
            "Cache-Control: no-cache\r\nPragma: no-cache\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%s\r\n", path, port,
            websocket == 2 ? "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n" : "");
        if (send(fd, scratch, length, 0) != length) fail("send");
        while (got < 4 || memcmp(scratch + got - 4, "\r\n\r\n", 4))
            if (recv(fd, scratch + got++, 1, 0) != 1) fail("handshake");
        if (memcmp(scratch, "HTTP/1.1 101", 12)) fail("status");
        if (message) { /* a masked text frame, its mask zeros (RFC 6455, section 5.3) */
            size_t size = strlen(message);
            unsigned char frame[131] = {0x81, 0x80 | size};
            memcpy(frame + 6, message, size);
            if (send(fd, frame, size + 6, 0) < 0) fail("message");
        }
    }
    return fd;
}

static int drain(int port, int clients, int websocket) {
    int queue = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN}, events[512];
    for (int i = 0; i < clients; i++) {
        event.data.fd = connect_one(port, websocket);
        epoll_ctl(queue, EPOLL_CTL_ADD, event.data.fd, &event);
    }
    event.data.fd = 0;
    epoll_ctl(queue, EPOLL_CTL_ADD, 0, &event);
    puts("ready");
    fflush(stdout);
    for (long total = 0;;) {
        int count = epoll_wait(queue, events, 512, -1);
        for (int i = 0; i < count; i++) {
            ssize_t size = read(events[i].data.fd, scratch, sizeof scratch);
            if (size <= 0) return 0;
            if (events[i].data.fd) total += size;
            else printf("%ld\n", total), fflush(stdout);
        }
        usleep(2000); /* wake for many at a time: the audience must not take the server's caches */
    }
}

int main(int count, char **words) {
    if (count == 3 && !strcmp(words[1], "serve")) return serve(atoi(words[2]));
    if (count > 5) path = words[5];
    if (count > 6) message = words[6];
    if (count >= 5 && !strcmp(words[1], "drain")) return drain(atoi(words[2]), atoi(words[3]), atoi(words[4]));
    return 2;
}
