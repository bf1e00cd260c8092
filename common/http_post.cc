#include "common/http_post.h"

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/http/write.hpp>
#include <chrono>
#include <optional>
#include <utility>

#include "common/address.h"

namespace fathom {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using boost::system::error_code;

constexpr uint64_t kAnswerBytesMax = 64 << 10;

// One exchange: resolve, connect, write, read. Each step begins when the one before has ended.
class Exchange {
 public:
  Exchange(const HttpUrl& url, const std::string& content_type, std::string body)
      : url_(url), request_(http::verb::post, url.target, 11) {
    request_.set(http::field::host, FormatHostPort(url.host, url.port));
    request_.set(http::field::content_type, content_type);
    request_.set(http::field::connection, "close");
    request_.body() = std::move(body);
    request_.prepare_payload();
    parser_.body_limit(kAnswerBytesMax);
  }

  absl::StatusOr<int> Run(int64_t timeout_ms) {
    resolver_.async_resolve(
        url_.host, std::to_string(url_.port),
        [this](error_code error, const asio::ip::tcp::resolver::results_type& found) {
          if (!Failed("finding", error)) Connect(found);
        });
    context_.run_for(std::chrono::milliseconds(timeout_ms));
    if (status_) return *status_;
    if (!error_.ok()) return error_;
    return DeadlineExceeded("{}: no answer within {} ms", Peer(), timeout_ms);
  }

 private:
  std::string Peer() const { return FormatHostPort(url_.host, url_.port); }
  bool Failed(const char* doing, error_code error) {
    if (error) error_ = Unavailable("{} {}: {}", doing, Peer(), error.message());
    return error.failed();
  }
  void Connect(const asio::ip::tcp::resolver::results_type& found) {
    stream_.async_connect(found, [this](error_code error, const auto&) {
      if (Failed("connecting to", error)) return;
      http::async_write(stream_, request_, [this](error_code failed, size_t) {
        if (!Failed("writing to", failed)) Read();
      });
    });
  }
  void Read() {
    http::async_read(stream_, buffer_, parser_, [this](error_code error, size_t) {
      if (!Failed("reading from", error)) status_ = parser_.get().result_int();
    });
  }

  const HttpUrl url_;
  asio::io_context context_;
  asio::ip::tcp::resolver resolver_{context_};
  beast::tcp_stream stream_{context_};
  http::request<http::string_body> request_;
  beast::flat_buffer buffer_;
  http::response_parser<http::string_body> parser_;
  std::optional<int> status_;
  absl::Status error_;
};

}  // namespace

absl::StatusOr<HttpUrl> ParseHttpUrl(std::string_view url) {
  constexpr std::string_view kScheme = "http://";
  if (!url.starts_with(kScheme)) {
    return Invalid("'{}' is not a URL of the form http://HOST:PORT/PATH{}", url,
                   url.starts_with("https://") ? "; https is not supported: use a collector on "
                                                 "this machine or in this network"
                                               : "");
  }
  const std::string_view rest = url.substr(kScheme.size());
  const size_t slash = std::min(rest.find('/'), rest.size());
  const std::string_view address = rest.substr(0, slash);
  HttpUrl parsed;
  parsed.target = rest.substr(slash);
  const bool has_port = address.find(':', address.find(']') + 1) != std::string_view::npos;
  auto host_port = ParseHostPort(has_port ? std::string(address) : fmt::format("{}:80", address));
  if (!host_port.ok()) return Annotate(host_port.status(), std::string(url));
  parsed.host = std::move(host_port->host);
  parsed.port = host_port->port;
  return parsed;
}

absl::StatusOr<int> HttpPost(const HttpUrl& url, const std::string& content_type, std::string body,
                             int64_t timeout_ms) {
  return Exchange(url, content_type, std::move(body)).Run(timeout_ms);
}

}  // namespace fathom
