#include "http/server.h"

#include <atomic>
#include <map>
#include <mutex>
#include <vector>

#include "common/self_dial.h"
#include "tests/http/http_client.h"

namespace fathom::http {
namespace {

Routes EchoRoutes() {
  Routes routes;
  routes.Add("GET", "/echo", [](const Request& request) {
    return Response{200,
                    "text/plain",
                    request.method + " " + request.path + "?" + request.query + " " + request.peer,
                    {{"X-Mine", "1"}}};
  });
  routes.Add("GET", "/long", [](const Request&) {
    return Response{200, "text/plain", std::string(64 << 20, 'x'), {}};
  });
  return routes;
}

TEST(HttpServer, AnswersARouteOnEveryAddressFamily) {
  for (const char* host : {"127.0.0.1", "::1"}) {
    Listener listener = Listen(host);
    const int port = listener.port();
    const Server server(std::move(listener), EchoRoutes());
    const std::string answer = Get(port, "/echo?a=b&c", host);
    EXPECT_TRUE(IsStatus(answer, 200)) << answer;
    EXPECT_NE(answer.find("\r\nX-Mine: 1\r\n"), std::string::npos) << answer;
    EXPECT_TRUE(answer.ends_with(std::string("\r\n\r\nGET /echo?a=b&c ") + host)) << answer;
  }
}

TEST(HttpServer, KeepsAConnectionForSeveralRequestsAlsoSentTogether) {
  Listener listener = Listen();
  const int port = listener.port();
  const Server server(std::move(listener), EchoRoutes());
  TcpClient client("127.0.0.1", port);
  const std::string request = "GET /echo?n=1 HTTP/1.1\r\nHost: x\r\n\r\n";
  client.Write(request);
  EXPECT_NE(client.ReadUntil("?n=1 127.0.0.1").find("200 OK"), std::string::npos);
  std::string many;
  for (int i = 0; i < 20; ++i) many += request;
  client.Write(many + "GET /echo?last HTTP/1.1\r\nHost: x\r\n\r\n");
  const std::string answers = client.ReadUntil("?last 127.0.0.1");
  size_t count = 0;
  for (size_t at = 0; (at = answers.find("200 OK", at)) != answers.npos; ++at) ++count;
  EXPECT_EQ(count, 21);
}

TEST(HttpServer, AHeadHasTheHeaderOfItsGet) {
  Listener listener = Listen();
  const int port = listener.port();
  const Server server(std::move(listener), EchoRoutes());
  const std::string head = Ask(port, "HEAD /echo HTTP/1.1\r\nConnection: close\r\n\r\n");
  EXPECT_TRUE(IsStatus(head, 200)) << head;
  EXPECT_NE(head.find("Content-Length: 21\r\n"), std::string::npos) << head;
  EXPECT_TRUE(head.ends_with("\r\n\r\n"));
}

// Each refusal is an error object that says what was wrong, and is counted.
TEST(HttpServer, RefusesWhatIsNoRequestOfItsRoutes) {
  Listener listener = Listen();
  const int port = listener.port();
  std::mutex mutex;
  std::map<int, int> counted;
  const Server server(std::move(listener), EchoRoutes(), [&](int status) {
    const std::lock_guard lock(mutex);
    ++counted[status];
  });
  const std::string body(100'000, 'b');
  const struct {
    int status;
    std::string bytes, text;
  } cases[] = {
      {404, "GET /v1/models HTTP/1.1\r\n\r\n",
       "/v1/models does not exist here; this port has /ech"},
      {405, "POST /echo HTTP/1.1\r\nContent-Length: 0\r\n\r\n", "is answered to GET, not to POST"},
      {405, "POST /echo HTTP/1.1\r\nContent-Length: 100000\r\n\r\n" + body, "not to POST"},
      {413, "GET /echo HTTP/1.1\r\nContent-Length: 100000\r\n\r\n" + body, "takes no body"},
      {413, "GET /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n", "takes no body"},
      {400, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "no HTTP/1.1 request"},
      {400, "\x16\x03\x01\x02\x00 a TLS hello\r\n\r\n", "no HTTP/1.1 request"},
      {431, "GET /echo HTTP/1.1\r\nX: " + std::string(20 << 10, 'a'), "may have 16384 bytes"},
  };
  for (const auto& c : cases) {
    const bool closes =
        c.status == 400 || c.status == 413 || c.status == 431 || c.bytes.size() > body.size();
    std::string bytes = c.bytes;
    if (!closes) bytes.insert(bytes.find("\r\n") + 2, "Connection: close\r\n");
    const std::string answer = Ask(port, bytes);
    EXPECT_TRUE(IsStatus(answer, c.status)) << c.status << ": " << answer;
    EXPECT_NE(answer.find(c.text), std::string::npos) << answer;
    EXPECT_NE(answer.find("\"type\":\"invalid_request_error\""), std::string::npos) << answer;
  }
  EXPECT_NE(Ask(port, "PUT /echo HTTP/1.1\r\nConnection: close\r\n\r\n").find("\r\nAllow: GET\r\n"),
            std::string::npos);
  const std::lock_guard lock(mutex);
  EXPECT_EQ(counted, (std::map<int, int>{{400, 2}, {404, 1}, {405, 3}, {413, 2}, {431, 1}}));
}

// There are more silent, slow and incomplete connections than the server keeps. The next one is
// answered without waiting for a time-out, and the oldest ones are closed.
TEST(HttpServer, SilentConnectionsKeepNobodyWaiting) {
  Listener listener = Listen();
  const int port = listener.port();
  const Server server(std::move(listener), EchoRoutes(), {}, {.connections_max = 16});
  std::vector<TcpClient> silent;
  for (int i = 0; i < 100; ++i) {
    silent.emplace_back("127.0.0.1", port);
    if (i % 2 == 1) silent.back().Write("GET /echo HTTP/1.1\r\nHost:");
    if (i % 25 == 0) {
      EXPECT_TRUE(IsStatus(Get(port, "/echo"), 200)) << i;
    }
  }
  EXPECT_TRUE(IsStatus(Get(port, "/echo"), 200));
  EXPECT_TRUE(silent.front().WaitClosed());
}

// A client that does not read, one whose header never ends, and an idle one are closed.
TEST(HttpServer, EveryWaitForAClientEnds) {
  Listener listener = Listen();
  const int port = listener.port();
  const Server server(std::move(listener), EchoRoutes(), {},
                      {.header_ms = 20, .answer_ms = 20, .idle_ms = 20});
  TcpClient idle("127.0.0.1", port), slow("127.0.0.1", port), deaf("127.0.0.1", port);
  slow.Write("GET /echo HTTP/1.1\r\nHost:");
  EXPECT_TRUE(idle.WaitClosed());
  EXPECT_TRUE(slow.WaitClosed());
  deaf.Write("GET /long HTTP/1.1\r\n\r\n");
  EXPECT_TRUE(IsStatus(Get(port, "/echo"), 200));
  TcpClient later("127.0.0.1", port);  // Its time ends after that of `deaf`.
  EXPECT_TRUE(later.WaitClosed());
  EXPECT_LT(deaf.ReadUntil("no such text").size(), size_t{64} << 20);
}

TEST(HttpServer, EndsWhileConnectionsAreOpen) {
  Listener listener = Listen();
  const int port = listener.port();
  auto server = std::make_unique<Server>(std::move(listener), EchoRoutes());
  TcpClient silent("127.0.0.1", port), half("127.0.0.1", port);
  half.Write("GET /echo HTTP/1.1\r\n");
  EXPECT_TRUE(IsStatus(Get(port, "/echo"), 200));
  server.reset();
  EXPECT_TRUE(silent.WaitClosed());
  EXPECT_TRUE(half.WaitClosed());
}

// A port that answers, or that refuses at once, is heard by the process that dials itself.
TEST(HttpServer, IsHeardBySelfDial) {
  for (const char* host : {"127.0.0.1", "::"}) {
    Listener listener = Listen(host);
    const int port = listener.port();
    const Server server(std::move(listener), EchoRoutes());
    EXPECT_TRUE(Answers({"--http-port", host, port, OwnPort::Speaks::kHttp1}, 30'000));
    EXPECT_TRUE(Answers({"--http-port", host, port, OwnPort::Speaks::kHttp2}, 30'000));
  }
}

}  // namespace
}  // namespace fathom::http
