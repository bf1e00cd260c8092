#include "common/http_server.h"

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/http/write.hpp>
#include <chrono>
#include <list>
#include <optional>
#include <thread>
#include <utility>

#include "common/check.h"

namespace fathom {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using boost::system::error_code;

// The pause after a failed accept, which means that descriptors or memory are short.
constexpr std::chrono::milliseconds kAcceptPause{50};

}  // namespace

class HttpServer::Impl {
 public:
  Impl(Listener listener, Handler handler, const HttpLimits& limits)
      : handler_(std::move(handler)), limits_(limits) {
    error_code error;
    acceptor_.assign(listener.is_ipv6() ? asio::ip::tcp::v6() : asio::ip::tcp::v4(), listener.fd(),
                     error);
    FATHOM_CHECK(!error, "a listening socket: {}", error.message());
    listener.Release();
    Accept();
    thread_ = std::thread([this] { context_.run(); });
  }

  ~Impl() {
    context_.stop();
    thread_.join();
  }

 private:
  class Connection;
  using Place = std::list<std::weak_ptr<Connection>>::iterator;

  void Accept() {
    acceptor_.async_accept([this](error_code error, asio::ip::tcp::socket socket) {
      if (error) return AcceptLater();
      Begin(std::move(socket));
      Accept();
    });
  }

  void AcceptLater() {
    pause_.expires_after(kAcceptPause);
    pause_.async_wait([this](error_code) { Accept(); });
  }

  void Begin(asio::ip::tcp::socket socket);

  const Handler handler_;
  const HttpLimits limits_;
  // Oldest first. Declared before the context, because the context's destructor destroys the
  // connections.
  std::list<std::weak_ptr<Connection>> connections_;
  asio::io_context context_{1};
  asio::ip::tcp::acceptor acceptor_{context_};
  asio::steady_timer pause_{context_};
  std::thread thread_;
};

// The operation in flight owns the connection; without an operation the connection is destroyed.
class HttpServer::Impl::Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(Impl* impl, asio::ip::tcp::socket socket) : impl_(*impl), stream_(std::move(socket)) {}
  ~Connection() { impl_.connections_.erase(place_); }

  void Begin(Place place) {
    place_ = place;
    Read();
  }

  void Close() { stream_.close(); }

 private:
  void Read() {
    parser_.emplace();
    parser_->header_limit(static_cast<uint32_t>(impl_.limits_.header_bytes_max));
    parser_->body_limit(0);
    stream_.expires_after(std::chrono::milliseconds(impl_.limits_.timeout_ms));
    http::async_read(
        stream_, buffer_, *parser_, [self = shared_from_this()](error_code error, size_t) {
          if (!error) return self->Answer();
          if (error == http::error::header_limit) {
            self->Write({431, "text/plain", "the header is too long\n"}, false, false);
          } else if (error.category() == http::make_error_code(http::error{}).category() &&
                     error != http::error::end_of_stream) {
            self->Write({400, "text/plain", "not a GET of HTTP/1.1\n"}, false, false);
          }
        });
  }

  void Answer() {
    const auto& request = parser_->get();
    const bool is_head = request.method() == http::verb::head;
    if (!is_head && request.method() != http::verb::get) {
      return Write({405, "text/plain", "this port answers GET\n"}, false, false);
    }
    const std::string_view target(request.target().data(), request.target().size());
    Write(impl_.handler_(target.substr(0, target.find('?'))), request.keep_alive(), is_head);
  }

  void Write(HttpAnswer answer, bool keep_alive, bool is_head) {
    response_.emplace(http::int_to_status(static_cast<unsigned>(answer.status)), 11);
    response_->set(http::field::content_type, answer.content_type);
    response_->keep_alive(keep_alive);
    const size_t bytes = answer.body.size();
    if (!is_head) response_->body() = std::move(answer.body);
    response_->content_length(bytes);
    stream_.expires_after(std::chrono::milliseconds(impl_.limits_.timeout_ms));
    http::async_write(
        stream_, *response_, [self = shared_from_this(), keep_alive](error_code error, size_t) {
          if (!error && keep_alive) return self->Read();
          self->stream_.socket().shutdown(asio::ip::tcp::socket::shutdown_send, error);
        });
  }

  Impl& impl_;
  Place place_;
  beast::tcp_stream stream_;
  beast::flat_buffer buffer_{64 << 10};
  std::optional<http::request_parser<http::empty_body>> parser_;
  std::optional<http::response<http::string_body>> response_;
};

void HttpServer::Impl::Begin(asio::ip::tcp::socket socket) {
  if (connections_.size() >= limits_.connections_max) {
    if (const auto oldest = connections_.front().lock()) oldest->Close();
  }
  const auto connection = std::make_shared<Connection>(this, std::move(socket));
  connections_.push_back(connection);
  connection->Begin(std::prev(connections_.end()));
}

HttpServer::HttpServer(Listener listener, Handler handler, const HttpLimits& limits)
    : impl_(std::make_unique<Impl>(std::move(listener), std::move(handler), limits)) {}
HttpServer::~HttpServer() = default;

}  // namespace fathom
