// http/live_exchange.h: the Exchange (exchange.h) of one connection of the server. Its public
// methods only post to the server's thread, which owns all state. Only the sources of http/ use it.
//
// While it runs, the socket is read by Watch, which finds out that the client left and keeps the
// bytes of a next request, up to a limit; beyond it the connection is not read, so such a client is
// found to have left only by a failed write.
#pragma once

#include <atomic>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "http/client_stream.h"
#include "http/exchange.h"
#include "http/loop.h"

namespace fathom::http {

class LiveExchange;

// A connection of the server; its coroutine owns it.
struct Connection {
  Connection(boost::asio::ip::tcp::socket socket, std::shared_ptr<boost::asio::ssl::context> tls)
      : stream(std::move(socket), std::move(tls)) {}
  ClientStream stream;
  boost::beast::flat_buffer buffer{64 << 10};
  std::string peer;
  bool reading = false;              // A request has begun.
  LiveExchange* exchange = nullptr;  // The one that runs.
};

struct ExchangeOptions {
  bool keep_alive = false;  // The client allows another request.
  bool is_head = false;
  bool chunked = true;  // False for HTTP/1.0: a stream ends with its connection.
  int answer_ms = 0;    // For the client to take a whole answer, or the end of a stream.
  std::function<void(int status)> answered = {};
};

// The head of an answer, up to and with the empty line. `body_bytes`: below 0: a stream.
std::string HeadOf(const Response& answer, const ExchangeOptions& options, int64_t body_bytes);

class LiveExchange final : public Exchange, public std::enable_shared_from_this<LiveExchange> {
 public:
  LiveExchange(std::shared_ptr<Loop> loop, Request request, ExchangeOptions options)
      : loop_(std::move(loop)), request_(std::move(request)), options_(std::move(options)) {}

  Request& request() override { return request_; }
  bool hung_up() const override { return hung_up_; }
  void SetSink(std::shared_ptr<ExchangeSink> sink) override;
  void Post(std::function<void()> work) override { loop_->Post(std::move(work)); }
  void Answer(Response answer) override;
  void Begin(Response head) override;
  void Write(std::string bytes) override;
  void End(std::string bytes) override;
  void Abort() override;
  void Break() override;

  // Of the server's thread. Returns when the exchange is over. True: the whole answer was written,
  // and the connection is open. REQUIRES: called once; `connection` outlives the call.
  boost::asio::awaitable<bool> Run(Connection* connection);
  // Of the server's thread: the client left.
  void HangUp();

 private:
  boost::asio::awaitable<void> Wait();
  boost::asio::awaitable<bool> WriteOut();
  void Wake();
  void Watch();
  void AppendChunk(const std::string& bytes);

  const std::shared_ptr<Loop> loop_;
  Request request_;
  const ExchangeOptions options_;
  std::atomic<bool> hung_up_ = false;

  // What follows belongs to the server's thread.
  std::shared_ptr<ExchangeSink> sink_;
  Connection* connection_ = nullptr;           // Null before and after Run.
  boost::asio::steady_timer* wake_ = nullptr;  // Of Run.
  bool woken_ = false;
  bool watching_ = false;
  bool begun_ = false;
  bool ended_ = false;
  bool closes_ = false;      // The connection ends with this exchange.
  bool write_owed_ = false;  // OnWritten follows when `out_` is written.
  std::string out_;
};

}  // namespace fathom::http
