#include "http/server.h"

#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/http/write.hpp>
#include <chrono>
#include <condition_variable>
#include <list>
#include <mutex>
#include <optional>
#include <string_view>
#include <thread>
#include <utility>

#include "common/check.h"
#include "http/live_exchange.h"
#include "http/tls_context.h"

namespace fathom::http {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
using asio::ip::tcp;
using boost::system::error_code;
using std::chrono::milliseconds;

// Operations report errors as values, so that a client's error is never an exception.
constexpr auto kAwait = asio::as_tuple(asio::use_awaitable);
// The pause after a failed accept, which means that descriptors or memory are short.
constexpr milliseconds kAcceptPause{50};
// After an error the bytes that the client still sends are read for so long, and up to so many
// bytes. Without it the kernel resets the connection, and the client loses the answer.
constexpr milliseconds kLinger{1'000};
constexpr size_t kLingerBytesMax = 256 << 10;

using Parser = beast::http::request_parser<beast::http::empty_body>;
using BodyParser = beast::http::request_parser<beast::http::string_body>;

std::string_view ViewOf(beast::string_view text) { return {text.data(), text.size()}; }

// A request that cannot be read is answered with this; status 0: the connection ended, or was
// silent, and there is nothing to answer.
Response AnswerTo(error_code error, const Limits& limits) {
  if (error == beast::http::error::header_limit) {
    return ErrorResponse(431, "header_too_large",
                         fmt::format("the header of a request may have {} bytes on this port",
                                     limits.header_bytes_max));
  }
  const bool of_parser =
      error.category() == beast::http::make_error_code(beast::http::error{}).category();
  if (!of_parser || error == beast::http::error::end_of_stream) return {.status = 0};
  return ErrorResponse(400, "bad_request", fmt::format("no HTTP/1.1 request: {}", error.message()));
}

Response TooLarge(const std::string& path, size_t bytes_max) {
  return ErrorResponse(
      413, "body_too_large",
      fmt::format("the body of a request to {} may have {} bytes", path, bytes_max));
}

std::string Lower(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  return lower;
}

// Ends a connection whose client vanished without a word, as the gRPC ports do.
void SetKeepAlive(tcp::socket& socket) {
  const int fd = socket.native_handle();
  const auto set = [fd](int level, int option, int value) {
    setsockopt(fd, level, option, &value, sizeof value);
  };
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
  set(IPPROTO_TCP, TCP_KEEPIDLE, 60);
  set(IPPROTO_TCP, TCP_KEEPINTVL, 10);
  set(IPPROTO_TCP, TCP_KEEPCNT, 3);
}

}  // namespace

class Server::Impl {
 public:
  Impl(Listener listener, Routes routes, std::function<void(int)> answered, const Limits& limits,
       Protection protection)
      : routes_(std::move(routes)),
        answered_(std::move(answered)),
        limits_(limits),
        guard_(std::move(protection.guard)),
        tls_(protection.tls) {
    error_code error;
    acceptor_.assign(listener.is_ipv6() ? tcp::v6() : tcp::v4(), listener.fd(), error);
    FATHOM_CHECK(!error, "a listening socket: {}", error.message());
    listener.Release();
    Spawn(Accept());
    thread_ = std::thread([this] { context_.run(); });
  }

  // The streams of the exchanges are ended by their handlers, which may need other threads.
  ~Impl() {
    loop_->Post([this] { CloseAll(); });
    std::unique_lock lock(exchanges_mutex_);
    exchanges_ended_.wait(lock, [this] { return closed_ && exchanges_ == 0; });
    lock.unlock();
    context_.stop();
    thread_.join();
    loop_->Close();
  }

 private:
  using Connections = std::list<Connection*>;

  void Spawn(asio::awaitable<void> work) {
    asio::co_spawn(context_, std::move(work), [](const std::exception_ptr& thrown) {
      // Only memory can run out here, and then the process cannot serve.
      if (thrown) std::rethrow_exception(thrown);
    });
  }

  asio::awaitable<void> Accept() {
    asio::steady_timer pause(context_);
    for (;;) {
      auto [error, socket] = co_await acceptor_.async_accept(kAwait);
      if (error) {
        pause.expires_after(kAcceptPause);
        co_await pause.async_wait(kAwait);
        continue;
      }
      if (!MakeRoom()) {
        TurnAway(socket);
        continue;
      }
      Spawn(Serve(std::move(socket)));
    }
  }

  void CloseAll() {
    error_code ignored;
    acceptor_.close(ignored);
    stopping_ = true;
    for (Connection* connection : connections_) {
      connection->stream.close();
      if (connection->exchange != nullptr) connection->exchange->HangUp();
    }
    CountExchange(0);
  }

  // `change`: an exchange began (1) or ended (-1).
  void CountExchange(int change) {
    const std::lock_guard lock(exchanges_mutex_);
    exchanges_ += change;
    closed_ = stopping_;
    exchanges_ended_.notify_all();
  }

  // Connections without a request are closed first; the list has the longest silent one in front.
  // False: all of them have one that is being answered.
  bool MakeRoom() {
    if (connections_.size() < limits_.connections_max) return true;
    const auto open = [](Connection* c) {
      return c->stream.socket().is_open() && c->exchange == nullptr;
    };
    const auto idle = [&](Connection* c) { return open(c) && !c->reading; };
    auto victim = std::find_if(connections_.begin(), connections_.end(), idle);
    if (victim == connections_.end()) {
      victim = std::find_if(connections_.begin(), connections_.end(), open);
    }
    if (victim == connections_.end()) return false;
    (*victim)->stream.close();
    return true;
  }

  // As good as it can be done without waiting.
  void TurnAway(tcp::socket& socket) {
    const Response answer =
        ErrorResponse(503, "too_many_connections",
                      fmt::format("this port has {} connections, and all of them are in use; try "
                                  "again, or another router",
                                  limits_.connections_max));
    const std::string bytes =
        HeadOf(answer, {}, static_cast<int64_t>(answer.body.size())) + answer.body;
    error_code ignored;
    socket.non_blocking(true, ignored);
    if (tls_ == nullptr) socket.write_some(asio::buffer(bytes), ignored);
    if (answered_) answered_(answer.status);
  }

  // The coroutine owns the connection. When the server is destroyed, the context destroys the
  // coroutines, and with them the sockets, while it still exists.
  asio::awaitable<void> Serve(tcp::socket socket) {
    Connection connection(std::move(socket), tls_ == nullptr ? nullptr : tls_->current());
    const auto place = connections_.insert(connections_.end(), &connection);
    error_code ignored;
    connection.stream.socket().set_option(tcp::no_delay(true), ignored);
    SetKeepAlive(connection.stream.socket());
    connection.peer = connection.stream.socket().remote_endpoint(ignored).address().to_string();
    bool open = true;
    if (connection.stream.has_tls()) open = co_await ShakeHands(connection);
    while (open) {
      open = co_await ServeOne(connection);
      connections_.splice(connections_.end(), connections_, place);
    }
    connections_.erase(place);
  }

  // A client that is silent or slow here is one that sends a slow header.
  asio::awaitable<bool> ShakeHands(Connection& connection) {
    connection.stream.expires_after(milliseconds(limits_.header_ms));
    const auto [error] = co_await connection.stream.AsyncHandshake(kAwait);
    co_return !error;
  }

  // Reads and answers one request. False: the connection is over.
  asio::awaitable<bool> ServeOne(Connection& connection) {
    ClientStream& stream = connection.stream;
    if (connection.buffer.size() == 0) {
      connection.reading = false;
      stream.expires_after(milliseconds(limits_.idle_ms));
      const auto [silent, bytes] =
          co_await stream.async_read_some(connection.buffer.prepare(4096), kAwait);
      if (silent) co_return false;
      connection.buffer.commit(bytes);
    }
    connection.reading = true;
    Parser parser;
    parser.header_limit(static_cast<uint32_t>(limits_.header_bytes_max));
    parser.body_limit(boost::none);  // ReadBody has the limit of the route.
    stream.expires_after(milliseconds(limits_.header_ms));
    const auto [unread, header_bytes] =
        co_await beast::http::async_read_header(stream, connection.buffer, parser, kAwait);
    if (unread) {
      const Response answer = AnswerTo(unread, limits_);
      if (answer.status != 0) co_await Refuse(connection, answer);
      co_return false;
    }
    Request request = RequestOf(parser.get(), connection.peer);
    const auto found = routes_.Find(request.method, request.path);
    const auto* const route = std::get_if<const Route*>(&found);
    if (guard_) {
      const std::string_view name = route == nullptr ? "" : std::string_view((*route)->name);
      const std::optional<Response> refused = guard_(&request, name);
      if (refused) {
        co_await Refuse(connection, *refused);
        co_return false;
      }
    }
    const bool has_body = parser.chunked() || parser.content_length().value_or(0) > 0;
    if (has_body && (route == nullptr || (*route)->body_bytes_max == 0)) {
      const Response answer = route == nullptr
                                  ? std::get<Response>(found)
                                  : ErrorResponse(413, "body_not_allowed",
                                                  fmt::format("{} takes no body", request.path));
      co_await Refuse(connection, answer);
      co_return false;
    }
    if (route != nullptr && (*route)->begin) {
      const bool goes_on = co_await Converse(connection, **route, parser, request);
      co_return goes_on;
    }
    const bool keep_alive = parser.get().keep_alive();
    const bool is_head = request.method == "HEAD";
    const Response answer =
        route == nullptr ? std::get<Response>(found) : (*route)->answer(request);
    const bool written = co_await Write(connection, answer, keep_alive, is_head);
    const bool stays = written && keep_alive;
    if (written && !keep_alive) co_await Linger(connection);
    co_return stays;
  }

  // One exchange: reads the body, begins the handler, and waits for its end.
  asio::awaitable<bool> Converse(Connection& connection, const Route& route, Parser& header,
                                 Request& request) {
    const ExchangeOptions options{.keep_alive = header.get().keep_alive(),
                                  .is_head = request.method == "HEAD",
                                  .chunked = header.get().version() >= 11,
                                  .answer_ms = limits_.end_ms,
                                  .answered = answered_};
    const Response refused = co_await ReadBody(connection, route, header, request);
    if (refused.status != 200) {
      if (refused.status != 0) co_await Refuse(connection, refused);
      co_return false;
    }
    const auto exchange = std::make_shared<LiveExchange>(loop_, std::move(request), options);
    if (stopping_) co_return false;
    connection.exchange = exchange.get();
    CountExchange(1);
    route.begin(exchange);
    const bool goes_on = co_await exchange->Run(&connection);
    CountExchange(-1);
    connection.exchange = nullptr;
    const bool stays = goes_on && options.keep_alive && !stopping_;
    if (goes_on && !options.keep_alive) co_await Linger(connection);
    co_return stays;
  }

  // Status 200: request.body is there; 0: the connection ended; else the refusal.
  asio::awaitable<Response> ReadBody(Connection& connection, const Route& route, Parser& header,
                                     Request& request) {
    if (header.content_length().value_or(0) > route.body_bytes_max) {
      co_return TooLarge(request.path, route.body_bytes_max);
    }
    ClientStream& stream = connection.stream;
    stream.expires_after(milliseconds(limits_.body_ms));
    if (Lower(request.Header("expect")) == "100-continue") {
      const auto go_on = asio::buffer("HTTP/1.1 100 Continue\r\n\r\n", 25);
      const auto [unwritten, written] = co_await asio::async_write(stream, go_on, kAwait);
      if (unwritten) co_return Response{.status = 0};
    }
    BodyParser parser(std::move(header));
    parser.body_limit(route.body_bytes_max);
    size_t counted = 0;
    Response refused;
    while (!parser.is_done() && refused.status == 200) {
      const auto [error, bytes] =
          co_await beast::http::async_read_some(stream, connection.buffer, parser, kAwait);
      bodies_bytes_ += parser.get().body().size() - counted;
      counted = parser.get().body().size();
      if (error == beast::http::error::body_limit) {
        refused = TooLarge(request.path, route.body_bytes_max);
      } else if (error) {
        refused = AnswerTo(error, limits_);
      } else if (bodies_bytes_ > limits_.bodies_bytes_max) {
        refused = ErrorResponse(503, "bodies_full",
                                "this port reads as many bodies as it may; try again");
      }
    }
    bodies_bytes_ -= counted;
    request.body = std::move(parser.get().body());
    co_return refused;
  }

  static Request RequestOf(const Parser::value_type& message, const std::string& peer) {
    const std::string_view target = ViewOf(message.target());
    const size_t mark = std::min(target.find('?'), target.size());
    Request request{std::string(ViewOf(message.method_string())),
                    std::string(target.substr(0, mark)),
                    std::string(target.substr(std::min(mark + 1, target.size()))), peer};
    for (const auto& field : message) {
      request.headers.emplace_back(Lower(ViewOf(field.name_string())), ViewOf(field.value()));
    }
    return request;
  }

  // g++ 12 makes wrong code of a co_await in a condition, and of temporaries in its operand, so
  // this file gives both a name.
  asio::awaitable<void> Refuse(Connection& connection, const Response& answer) {
    const bool written =
        co_await Write(connection, answer, /*keep_alive=*/false, /*is_head=*/false);
    if (written) co_await Linger(connection);
    co_return;
  }

  asio::awaitable<bool> Write(Connection& connection, const Response& answer, bool keep_alive,
                              bool is_head) {
    beast::http::response<beast::http::string_body> response(
        beast::http::int_to_status(static_cast<unsigned>(answer.status)), 11);
    response.set(beast::http::field::content_type, answer.content_type);
    response.set(beast::http::field::cache_control, "no-store");
    response.set("X-Content-Type-Options", "nosniff");
    for (const auto& [name, value] : answer.headers) response.set(name, value);
    response.keep_alive(keep_alive);
    response.content_length(answer.body.size());
    if (!is_head) response.body() = answer.body;
    if (answered_) answered_(answer.status);
    connection.stream.expires_after(milliseconds(limits_.answer_ms));
    const auto [error, bytes] =
        co_await beast::http::async_write(connection.stream, response, kAwait);
    co_return !error;
  }

  asio::awaitable<void> Linger(Connection& connection) {
    error_code ignored;
    connection.stream.expires_after(kLinger);
    if (connection.stream.has_tls()) {
      // It fails if the client still sends, which the lines below drop.
      const auto [error] = co_await connection.stream.AsyncShutdown(kAwait);
      if (error == beast::error::timeout) co_return;
    }
    connection.stream.socket().shutdown(tcp::socket::shutdown_send, ignored);
    connection.stream.expires_after(kLinger);
    for (size_t left = kLingerBytesMax; left > 0;) {
      connection.buffer.clear();
      const auto [error, bytes] =
          co_await connection.stream.tcp().async_read_some(connection.buffer.prepare(4096), kAwait);
      if (error) co_return;
      left -= std::min(left, bytes);
    }
  }

  const Routes routes_;
  const std::function<void(int)> answered_;
  const Limits limits_;
  const Guard guard_;
  const TlsContext* const tls_;
  // The one that has been without a request for the longest time is in front.
  Connections connections_;
  asio::io_context context_{1};
  const std::shared_ptr<Loop> loop_ = std::make_shared<Loop>(&context_);
  tcp::acceptor acceptor_{context_};
  size_t bodies_bytes_ = 0;
  bool stopping_ = false;
  std::mutex exchanges_mutex_;
  std::condition_variable exchanges_ended_;
  int exchanges_ = 0;    // Guarded by exchanges_mutex_, as is closed_.
  bool closed_ = false;  // CloseAll has run.
  std::thread thread_;
};

Server::Server(Listener listener, Routes routes, std::function<void(int)> answered,
               const Limits& limits, Protection protection)
    : impl_(std::make_unique<Impl>(std::move(listener), std::move(routes), std::move(answered),
                                   limits, std::move(protection))) {}
Server::~Server() = default;

}  // namespace fathom::http
