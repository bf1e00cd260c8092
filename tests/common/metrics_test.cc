#include "common/metrics.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/common/tcp.h"

namespace fathom {
namespace {

TEST(Metrics, TextHasNamesLabelsAndValues) {
  Metrics metrics("router");
  Counter ok = metrics.AddCounter("requests_total", "Requests by outcome", {{"outcome", "ok"}});
  Counter refused =
      metrics.AddCounter("requests_total", "Requests by outcome", {{"outcome", "refused"}});
  Gauge running = metrics.AddGauge("requests_running", "Running");
  Histogram ttft = metrics.AddHistogram("ttft_seconds", "Time to first token", {0.1, 1});
  ok.Add();
  ok.Add(2);
  refused.Add();
  running.Set(4);
  ttft.Observe(0.5);
  const std::string text = metrics.Text();
  for (const char* line :
       {"fathom_router_requests_total{outcome=\"ok\"} 3", "outcome=\"refused\"} 1",
        "fathom_router_requests_running 4", "fathom_router_ttft_seconds_bucket{le=\"1\"} 1",
        "fathom_router_ttft_seconds_bucket{le=\"0.1\"} 0"}) {
    EXPECT_NE(text.find(line), std::string::npos) << line << "\n" << text;
  }
  EXPECT_EQ(ok.value(), 3);
}

// Without a server: for whoever has the port.
TEST(Metrics, AnswersForAServerOfOthers) {
  Metrics metrics("router");
  metrics.AddHistogram("ttft_seconds", "Time to first token", {0.1, 1}).Observe(0.5);
  bool alive = true;
  const auto get = [&](std::string_view path) {
    return metrics.Answer(path, [&] { return alive; });
  };
  const HttpAnswer answer = get("/metrics");
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.content_type, "text/plain; version=0.0.4; charset=utf-8");
  EXPECT_EQ(answer.body, metrics.Text());
  EXPECT_TRUE(
      answer.body.starts_with("# HELP fathom_router_ttft_seconds Time to first token\n"
                              "# TYPE fathom_router_ttft_seconds histogram\n"
                              "fathom_router_ttft_seconds_count 1\n"
                              "fathom_router_ttft_seconds_sum 0.5\n"
                              "fathom_router_ttft_seconds_bucket{le=\"0.1\"} 0\n"
                              "fathom_router_ttft_seconds_bucket{le=\"1\"} 1\n"
                              "fathom_router_ttft_seconds_bucket{le=\"+Inf\"} 1\n"))
      << answer.body;
  EXPECT_EQ(get("/livez").status, 200);
  alive = false;
  EXPECT_EQ(get("/livez").status, 503);
  EXPECT_EQ(get("/v1/models").status, 404);
}

int Serve(Metrics* metrics, const char* host) {
  auto listener = Listener::Bind(host, 0, "--http-port");
  EXPECT_TRUE(listener.ok()) << ToString(listener.status());
  const int port = listener->port();
  metrics->Serve(*std::move(listener), [] { return true; });
  return port;
}

std::string Get(const std::string& host, int port, const std::string& path) {
  TcpClient client(host, port);
  client.Write("GET " + path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  return client.ReadUntil("no such text");
}

TEST(Metrics, ServesItsText) {
  for (const char* host : {"127.0.0.1", "[::1]"}) {
    Metrics first("router");
    first.AddCounter("requests_total", "Requests").Add(3);
    const int port = Serve(&first, host);
    const std::string answer = Get(host, port, "/metrics?x=1");
    EXPECT_TRUE(answer.starts_with("HTTP/1.1 200 OK\r\n")) << answer;
    EXPECT_TRUE(answer.ends_with("\r\n\r\n" + first.Text())) << answer;
    EXPECT_TRUE(Get(host, port, "/livez").starts_with("HTTP/1.1 200 "));
    EXPECT_TRUE(Get(host, port, "/other").starts_with("HTTP/1.1 404 ")) << answer;
  }
}

// There are more silent, slow and incomplete connections than the server keeps. The next one is
// answered without waiting for a time-out, and the oldest ones are closed.
TEST(Metrics, SilentConnectionsKeepNobodyWaiting) {
  Metrics metrics("router");
  const int port = Serve(&metrics, "127.0.0.1");
  std::vector<TcpClient> silent;
  for (int i = 0; i < 200; ++i) {
    silent.emplace_back("127.0.0.1", port);
    if (i % 2 == 1) silent.back().Write("GET /metrics HTTP/1.1\r\nHost:");
    if (i % 50 == 0) {
      EXPECT_TRUE(Get("127.0.0.1", port, "/metrics").starts_with("HTTP/1.1 200 OK\r\n"));
    }
  }
  EXPECT_TRUE(Get("127.0.0.1", port, "/metrics").starts_with("HTTP/1.1 200 OK\r\n"));
  EXPECT_TRUE(silent.front().WaitClosed());
}

TEST(Metrics, WhatIsNoGetIsRefused) {
  Metrics metrics("router");
  const int port = Serve(&metrics, "127.0.0.1");
  const auto ask = [&](const std::string& bytes) {
    TcpClient client("127.0.0.1", port);
    client.Write(bytes);
    return client.ReadUntil("no such text");
  };
  EXPECT_TRUE(ask("POST /metrics HTTP/1.1\r\nHost: x\r\n\r\n").starts_with("HTTP/1.1 405 "));
  EXPECT_TRUE(ask("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").starts_with("HTTP/1.1 400 "));
  EXPECT_TRUE(ask("GET /metrics HTTP/1.1\r\nX: " + std::string(20 << 10, 'a'))
                  .starts_with("HTTP/1.1 431 "));
  EXPECT_TRUE(ask("HEAD /metrics HTTP/1.1\r\nConnection: close\r\n\r\n").ends_with("\r\n\r\n"));
}

}  // namespace
}  // namespace fathom
