// Requests whose answers come later or are streams, against a server with real sockets. The
// handlers give their exchange to the test, which plays the code behind it.
#include "http/exchange.h"

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

#include "http/server.h"
#include "tests/http/http_client.h"

namespace fathom::http {
namespace {

// Remembers what an exchange reports.
class Sink final : public ExchangeSink {
 public:
  void OnWritten(bool ok) override { Add(ok ? "written" : "lost"); }
  void OnHangUp() override {
    if (end_at_hang_up_) end_at_hang_up_->Answer({499, "text/plain", "", {}});
    Add("left");
  }
  void OnDone() override { Add("done"); }

  // The first events, in their order; waits for as many.
  std::vector<std::string> Events(size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::minutes(1), [&] { return events_.size() >= count; });
    return events_;
  }
  std::shared_ptr<Exchange> end_at_hang_up_;

 private:
  void Add(const char* event) {
    const std::lock_guard lock(mutex_);
    events_.emplace_back(event);
    changed_.notify_all();
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> events_;
};

using Names = std::vector<std::string>;

class ExchangeTest : public testing::Test {
 protected:
  explicit ExchangeTest(const Limits& limits = {}) {
    Routes routes;
    routes.AddExchange("POST", "/later", 1000, [this](std::shared_ptr<Exchange> exchange) {
      const std::lock_guard lock(mutex_);
      exchanges_.push_back(std::move(exchange));
      came_.notify_all();
    });
    routes.AddExchange("POST", "/echo", 8 << 20, [](const std::shared_ptr<Exchange>& exchange) {
      exchange->Answer({200, "text/plain", std::move(exchange->request().body), {}});
    });
    routes.AddUnder("GET", "/under/", [](const Request& request) {
      return Response{200, "text/plain", request.path, {}};
    });
    Listener listener = Listen();
    port_ = listener.port();
    server_ = std::make_unique<Server>(
        std::move(listener), std::move(routes),
        [this](int status) {
          const std::lock_guard lock(mutex_);
          counted_.push_back(status);
        },
        limits);
  }

  std::shared_ptr<Exchange> Next() {
    std::unique_lock lock(mutex_);
    came_.wait_for(lock, std::chrono::minutes(1), [this] { return !exchanges_.empty(); });
    EXPECT_FALSE(exchanges_.empty());
    std::shared_ptr<Exchange> next = std::move(exchanges_.front());
    exchanges_.pop_front();
    return next;
  }
  static std::string Post(const std::string& path, const std::string& body,
                          const std::string& headers = "") {
    return "POST " + path + " HTTP/1.1\r\nHost: x\r\n" + headers +
           "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
  }
  std::vector<int> counted() {
    const std::lock_guard lock(mutex_);
    return counted_;
  }

  std::mutex mutex_;
  std::condition_variable came_;
  std::deque<std::shared_ptr<Exchange>> exchanges_;
  std::vector<int> counted_;
  int port_ = 0;
  std::unique_ptr<Server> server_;
};

TEST_F(ExchangeTest, AnswersLaterFromAnotherThread) {
  TcpClient client("127.0.0.1", port_);
  client.Write(Post("/later", "the body", "X-Some: 1\r\nX-SOME: two\r\n"));
  const auto exchange = Next();
  EXPECT_EQ(exchange->request().body, "the body");
  EXPECT_EQ(exchange->request().Header("x-some"), "two");
  EXPECT_EQ(exchange->request().Header("x-none"), "");
  const auto sink = std::make_shared<Sink>();
  exchange->SetSink(sink);
  std::thread([&] {
    exchange->Answer({201, "text/plain", "done", {{"X-Id", "a\r\nInjected: yes"}}});
  }).join();
  const std::string answer = client.ReadUntil("done");
  EXPECT_TRUE(IsStatus(answer, 201)) << answer;
  EXPECT_NE(answer.find("\r\nX-Id: a??Injected: yes\r\n"), std::string::npos) << answer;
  EXPECT_EQ(sink->Events(1), Names{"done"});
  EXPECT_FALSE(exchange->hung_up());
  // The connection stays for the next request.
  client.Write(Post("/echo", "again"));
  EXPECT_NE(client.ReadUntil("again").find("200 OK"), std::string::npos);
  EXPECT_EQ(counted(), (std::vector<int>{201, 200}));
}

TEST_F(ExchangeTest, StreamsInChunksAndTakesTheNextRequestMeanwhile) {
  TcpClient client("127.0.0.1", port_);
  client.Write(Post("/later", ""));
  const auto exchange = Next();
  const auto sink = std::make_shared<Sink>();
  exchange->SetSink(sink);
  exchange->Begin({200, "text/event-stream", "", {}});
  exchange->Write("one");
  EXPECT_EQ(sink->Events(1), Names{"written"});
  client.Write(Post("/echo", "next"));  // It waits until the stream has ended.
  exchange->Write("");
  EXPECT_EQ(sink->Events(2), (Names{"written", "written"}));
  exchange->Write(std::string(20, 'x'));
  EXPECT_EQ(sink->Events(3).size(), 3u);
  exchange->End("last");
  const std::string answer = client.ReadUntil("next");
  EXPECT_NE(answer.find("Transfer-Encoding: chunked\r\n"), std::string::npos) << answer;
  EXPECT_NE(answer.find("\r\n\r\n3\r\none\r\n14\r\nxxxxxxxxxxxxxxxxxxxx\r\n4\r\nlast\r\n0\r\n\r\n"
                        "HTTP/1.1 200 OK"),
            std::string::npos)
      << answer;
  EXPECT_EQ(sink->Events(4).back(), "done");
}

TEST_F(ExchangeTest, AStreamOfHttp10EndsWithItsConnection) {
  TcpClient client("127.0.0.1", port_);
  client.Write("POST /later HTTP/1.0\r\nContent-Length: 0\r\n\r\n");
  const auto exchange = Next();
  exchange->Begin({200, "text/event-stream", "", {}});
  exchange->End("all of it");
  const std::string answer = client.ReadUntil("no such text");
  EXPECT_EQ(answer.find("chunked"), std::string::npos) << answer;
  EXPECT_TRUE(answer.ends_with("\r\n\r\nall of it")) << answer;
}

// Nothing is written to any of these clients when they leave.
TEST_F(ExchangeTest, NoticesThatTheClientLeft) {
  for (const bool streams : {false, true}) {
    auto client = std::make_unique<TcpClient>("127.0.0.1", port_);
    client->Write(Post("/later", "x"));
    const auto exchange = Next();
    const auto sink = std::make_shared<Sink>();
    exchange->SetSink(sink);
    if (streams) {
      exchange->Begin({200, "text/event-stream", "", {}});
      exchange->Write("first");
      client->ReadUntil("first");
      EXPECT_EQ(sink->Events(1), Names{"written"});
    }
    client.reset();
    EXPECT_EQ(sink->Events(streams ? 2 : 1).back(), "left");
    EXPECT_TRUE(exchange->hung_up());
    if (streams) {
      exchange->Write("nobody reads it");
      EXPECT_EQ(sink->Events(3).back(), "lost");
      exchange->End("");
    } else {
      exchange->Answer({200, "text/plain", "nobody reads it", {}});
    }
    EXPECT_EQ(sink->Events(streams ? 4 : 2).back(), "done");
  }
}

TEST_F(ExchangeTest, AClientThatLeftBeforeTheSinkIsTold) {
  auto client = std::make_unique<TcpClient>("127.0.0.1", port_);
  client->Write(Post("/later", "x"));
  const auto exchange = Next();
  client.reset();
  while (!exchange->hung_up()) std::this_thread::yield();
  const auto sink = std::make_shared<Sink>();
  exchange->SetSink(sink);
  EXPECT_EQ(sink->Events(1), Names{"left"});
  exchange->Abort();
  EXPECT_EQ(sink->Events(2).back(), "done");
}

// A client that reads nothing: the write ends only when it is broken.
TEST_F(ExchangeTest, BreakEndsAWriteAsLost) {
  TcpClient deaf("127.0.0.1", port_);
  deaf.Write(Post("/later", "x"));
  const auto exchange = Next();
  const auto sink = std::make_shared<Sink>();
  exchange->SetSink(sink);
  exchange->Begin({200, "text/event-stream", "", {}});
  exchange->Write(std::string(64 << 20, 'x'));
  EXPECT_TRUE(IsStatus(Ask(port_, Post("/echo", "y", "Connection: close\r\n")), 200));
  exchange->Break();
  EXPECT_EQ(sink->Events(2), (Names{"left", "lost"}));
  exchange->End("");
  EXPECT_EQ(sink->Events(3).back(), "done");
}

TEST_F(ExchangeTest, AbortEndsTheConnectionWithoutTheEndOfTheStream) {
  TcpClient client("127.0.0.1", port_);
  client.Write(Post("/later", "x"));
  const auto exchange = Next();
  exchange->Begin({200, "text/event-stream", "", {}});
  const auto sink = std::make_shared<Sink>();
  exchange->SetSink(sink);
  exchange->Write("half");
  EXPECT_EQ(sink->Events(1), Names{"written"});
  exchange->Abort();
  const std::string answer = client.ReadUntil("no such text");
  EXPECT_TRUE(answer.ends_with("4\r\nhalf\r\n")) << answer;
}

TEST_F(ExchangeTest, BodiesInChunksAndAfterContinue) {
  const std::string chunked =
      "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
  std::string pieces;
  for (int i = 0; i < 5000; ++i) pieces += "1\r\nz\r\n";
  const std::string answer = Ask(port_, chunked + pieces + "0\r\n\r\n");
  EXPECT_TRUE(IsStatus(answer, 200));
  EXPECT_TRUE(answer.ends_with("\r\n\r\n" + std::string(5000, 'z')));

  TcpClient careful("127.0.0.1", port_);
  careful.Write("POST /echo HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
  EXPECT_EQ(careful.ReadUntil("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  careful.Write("body");
  EXPECT_NE(careful.ReadUntil("body").find("200 OK"), std::string::npos);

  const std::string large(4 << 20, 'L');  // More than a buffer of the server.
  EXPECT_TRUE(Ask(port_, Post("/echo", large, "Connection: close\r\n")).ends_with(large));
}

TEST_F(ExchangeTest, RefusesABodyBeyondTheRoutesLimit) {
  const struct {
    std::string bytes, text;
    int status;
  } cases[] = {
      {Post("/later", std::string(1001, 'x')), "the body of a request to /later may have 1000",
       413},
      {"POST /later HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n" +
           std::string(1001, 'x') + "\r\n0\r\n\r\n",
       "may have 1000 bytes", 413},
      {"POST /later HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
       "no HTTP/1.1 request", 400},
      {"POST /later HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "no HTTP/1.1 request",
       400},
      {"POST /under/x HTTP/1.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "not to POST",
       405},
      {"GET /under/ HTTP/1.1\r\nConnection: close\r\n\r\n", "does not exist", 404},
  };
  for (const auto& c : cases) {
    const std::string answer = Ask(port_, c.bytes);
    EXPECT_TRUE(IsStatus(answer, c.status)) << answer;
    EXPECT_NE(answer.find(c.text), std::string::npos) << answer;
  }
  EXPECT_TRUE(Get(port_, "/under/a/b").ends_with("\r\n\r\n/under/a/b"));
}

// The server tells the handlers, and waits until they have ended their exchanges.
TEST_F(ExchangeTest, EndsWhileExchangesRun) {
  TcpClient client("127.0.0.1", port_);
  client.Write(Post("/later", "x"));
  const auto exchange = Next();
  const auto sink = std::make_shared<Sink>();
  sink->end_at_hang_up_ = exchange;
  exchange->SetSink(sink);
  server_.reset();
  EXPECT_EQ(sink->Events(2), (Names{"left", "done"}));
  EXPECT_TRUE(client.WaitClosed());
  sink->end_at_hang_up_.reset();
  exchange->Break();  // After the end nothing happens.
}

class FewConnections : public ExchangeTest {
 protected:
  FewConnections() : ExchangeTest({.connections_max = 4}) {}
};

// Connections that are answered now are not closed for new ones.
TEST_F(FewConnections, ANewConnectionIsTurnedAwayIfAllAreInUse) {
  std::vector<TcpClient> clients;
  std::vector<std::shared_ptr<Exchange>> exchanges;
  for (int i = 0; i < 4; ++i) {
    clients.emplace_back("127.0.0.1", port_);
    clients.back().Write(Post("/later", "x"));
    exchanges.push_back(Next());
  }
  TcpClient fifth("127.0.0.1", port_);
  const std::string refused = fifth.ReadUntil("no such text");
  EXPECT_TRUE(IsStatus(refused, 503)) << refused;
  EXPECT_NE(refused.find("this port has 4 connections"), std::string::npos) << refused;
  exchanges.front()->Answer({200, "text/plain", "first", {}});
  EXPECT_NE(clients.front().ReadUntil("first").find("200 OK"), std::string::npos);
  // The first connection is idle soon after its answer, and is closed for the next one.
  std::string next;
  for (int tries = 0; tries < 1000 && !IsStatus(next, 200); ++tries) {
    next = Ask(port_, Post("/echo", "y", "Connection: close\r\n"));
  }
  EXPECT_TRUE(IsStatus(next, 200)) << next;
  EXPECT_TRUE(clients.front().WaitClosed());
  for (size_t i = 1; i < 4; ++i) exchanges[i]->Answer({200, "text/plain", "later", {}});
  for (size_t i = 1; i < 4; ++i) {
    EXPECT_NE(clients[i].ReadUntil("later").find("200 OK"), std::string::npos);
  }
}

class SmallBodies : public ExchangeTest {
 protected:
  SmallBodies() : ExchangeTest({.body_ms = 20, .bodies_bytes_max = 1000}) {}
};

TEST_F(SmallBodies, AllBodiesTogetherAreBounded) {
  const std::string answer = Ask(port_, Post("/echo", std::string(5000, 'x')));
  EXPECT_TRUE(IsStatus(answer, 503)) << answer;
  TcpClient slow("127.0.0.1", port_);
  slow.Write("POST /echo HTTP/1.1\r\nContent-Length: 100\r\n\r\nhalf");
  EXPECT_TRUE(slow.WaitClosed());
  EXPECT_TRUE(IsStatus(Ask(port_, Post("/echo", "y", "Connection: close\r\n")), 200));
}

}  // namespace
}  // namespace fathom::http
