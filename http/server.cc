#include "http/server.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/http/write.hpp>
#include <chrono>
#include <list>
#include <string_view>
#include <thread>
#include <utility>

#include "common/check.h"

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

}  // namespace

class Server::Impl {
 public:
  Impl(Listener listener, Routes routes, std::function<void(int)> answered, const Limits& limits)
      : routes_(std::move(routes)), answered_(std::move(answered)), limits_(limits) {
    error_code error;
    acceptor_.assign(listener.is_ipv6() ? tcp::v6() : tcp::v4(), listener.fd(), error);
    FATHOM_CHECK(!error, "a listening socket: {}", error.message());
    listener.Release();
    Spawn(Accept());
    thread_ = std::thread([this] { context_.run(); });
  }

  ~Impl() {
    context_.stop();
    thread_.join();
  }

 private:
  struct Connection {
    explicit Connection(tcp::socket socket) : stream(std::move(socket)) {}
    beast::tcp_stream stream;
    beast::flat_buffer buffer{64 << 10};
    std::string peer;
    bool reading = false;  // A request has begun.
  };
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
      MakeRoom();
      Spawn(Serve(std::move(socket)));
    }
  }

  // Connections without a request are closed first; the list has the longest silent one in front.
  void MakeRoom() {
    if (connections_.size() < limits_.connections_max) return;
    const auto open = [](const Connection* c) { return c->stream.socket().is_open(); };
    const auto idle = [&](const Connection* c) { return open(c) && !c->reading; };
    auto victim = std::find_if(connections_.begin(), connections_.end(), idle);
    if (victim == connections_.end()) {
      victim = std::find_if(connections_.begin(), connections_.end(), open);
    }
    if (victim != connections_.end()) (*victim)->stream.close();
  }

  // The coroutine owns the connection. When the server is destroyed, the context destroys the
  // coroutines, and with them the sockets, while it still exists.
  asio::awaitable<void> Serve(tcp::socket socket) {
    Connection connection(std::move(socket));
    const auto place = connections_.insert(connections_.end(), &connection);
    error_code ignored;
    connection.stream.socket().set_option(tcp::no_delay(true), ignored);
    connection.peer = connection.stream.socket().remote_endpoint(ignored).address().to_string();
    bool open = true;
    while (open) {
      open = co_await ServeOne(connection);
      connections_.splice(connections_.end(), connections_, place);
    }
    connections_.erase(place);
  }

  // Reads and answers one request. False: the connection is over.
  asio::awaitable<bool> ServeOne(Connection& connection) {
    beast::tcp_stream& stream = connection.stream;
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
    stream.expires_after(milliseconds(limits_.header_ms));
    const auto [unread, header_bytes] =
        co_await beast::http::async_read_header(stream, connection.buffer, parser, kAwait);
    if (unread) {
      const Response answer = AnswerTo(unread, limits_);
      if (answer.status != 0) co_await Refuse(connection, answer);
      co_return false;
    }
    if (parser.chunked() || parser.content_length().value_or(0) > 0) {
      const Response answer =
          ErrorResponse(413, "body_not_allowed", "no path of this port takes a body");
      co_await Refuse(connection, answer);
      co_return false;
    }
    const auto& message = parser.get();
    const bool keep_alive = message.keep_alive();
    const bool is_head = message.method() == beast::http::verb::head;
    const Response answer = routes_.Answer(RequestOf(message, connection.peer));
    const bool written = co_await Write(connection, answer, keep_alive, is_head);
    const bool stays = written && keep_alive;
    if (written && !keep_alive) co_await Linger(connection);
    co_return stays;
  }

  static Request RequestOf(const Parser::value_type& message, const std::string& peer) {
    const std::string_view target = ViewOf(message.target());
    const size_t mark = std::min(target.find('?'), target.size());
    return {std::string(ViewOf(message.method_string())), std::string(target.substr(0, mark)),
            std::string(target.substr(std::min(mark + 1, target.size()))), peer};
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
    connection.stream.socket().shutdown(tcp::socket::shutdown_send, ignored);
    connection.stream.expires_after(kLinger);
    for (size_t left = kLingerBytesMax; left > 0;) {
      connection.buffer.clear();
      const auto [error, bytes] =
          co_await connection.stream.async_read_some(connection.buffer.prepare(4096), kAwait);
      if (error) co_return;
      left -= std::min(left, bytes);
    }
  }

  const Routes routes_;
  const std::function<void(int)> answered_;
  const Limits limits_;
  // The one that has been without a request for the longest time is in front.
  Connections connections_;
  asio::io_context context_{1};
  tcp::acceptor acceptor_{context_};
  std::thread thread_;
};

Server::Server(Listener listener, Routes routes, std::function<void(int)> answered,
               const Limits& limits)
    : impl_(std::make_unique<Impl>(std::move(listener), std::move(routes), std::move(answered),
                                   limits)) {}
Server::~Server() = default;

}  // namespace fathom::http
