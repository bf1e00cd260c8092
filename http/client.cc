#include "http/client.h"

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/host_name_verification.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/http/write.hpp>
#include <chrono>
#include <exception>
#include <optional>
#include <utility>

#include "common/address.h"

namespace fathom::http {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
using asio::ip::tcp;
using boost::system::error_code;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kStoppedInterval{50};

using CallRequest = beast::http::request<beast::http::string_body>;

// One exchange: resolve, connect, write, read. Each step begins when the one before has ended.
class Exchange {
 public:
  Exchange(const Url& url, CallRequest request, const CallLimits& limits)
      : url_(url),
        limits_(limits),
        deadline_(steady_clock::now() + milliseconds(limits.timeout_ms)),
        request_(std::move(request)) {
    request_.set(beast::http::field::host, Peer());
    request_.set(beast::http::field::connection, "close");
    if (!limits.api_key.empty()) {
      request_.set(beast::http::field::authorization, "Bearer " + limits.api_key);
    }
    parser_.body_limit(limits.body_bytes_max);
  }

  absl::StatusOr<Reply> Run() {
    error_code error;
    tcp::resolver resolver(context_);
    const auto found = resolver.resolve(url_.host, std::to_string(url_.port),
                                        tcp::resolver::numeric_service, error);
    if (Failed("cannot be resolved", error)) return error_;
    if (limits_.tls && Failed("cannot be asked over TLS", PrepareTls())) return error_;
    Connect(found);
    while (!context_.stopped()) {
      const auto left = deadline_ - steady_clock::now();
      if (left <= left.zero()) {
        return DeadlineExceeded("{} does not answer: none within {} ms", Peer(),
                                limits_.timeout_ms);
      }
      if (limits_.stopped && limits_.stopped())
        return Aborted("{} has not answered before the call was stopped", Peer());
      context_.run_for(limits_.stopped ? std::min<steady_clock::duration>(left, kStoppedInterval)
                                       : left);
    }
    if (!reply_) return error_;
    return *std::move(reply_);
  }

 private:
  std::string Peer() const { return FormatHostPort(url_.host, url_.port); }
  bool Failed(const char* what, error_code error) {
    if (error) error_ = Unavailable("{} {}: {}", Peer(), what, error.message());
    return error.failed();
  }
  // The server's certificate must have the name or the address that is called.
  error_code PrepareTls() {
    error_code error;
    context_tls_.set_verify_mode(asio::ssl::verify_peer);
    if (limits_.tls_ca.empty()) {
      context_tls_.set_default_verify_paths(error);
    } else {
      context_tls_.load_verify_file(limits_.tls_ca, error);
    }
    tls_.emplace(stream_, context_tls_);
    tls_->set_verify_callback(asio::ssl::host_name_verification(url_.host));
    SSL_set_tlsext_host_name(tls_->native_handle(), url_.host.c_str());
    return error;
  }
  void Connect(const tcp::resolver::results_type& found) {
    stream_.async_connect(found, [this](error_code error, const auto&) {
      if (Failed("does not answer", error)) return;
      if (!tls_) return Write(stream_);
      tls_->async_handshake(asio::ssl::stream_base::client, [this](error_code failed) {
        if (!Failed("has no certificate that is trusted for this name", failed)) Write(*tls_);
      });
    });
  }
  template <class Stream>
  void Write(Stream& stream) {
    beast::http::async_write(stream, request_, [this, &stream](error_code failed, size_t) {
      if (!Failed("does not take a request", failed)) Read(stream);
    });
  }
  template <class Stream>
  void Read(Stream& stream) {
    beast::http::async_read(stream, buffer_, parser_, [this](error_code error, size_t) {
      if (error == beast::http::error::body_limit) {
        error_ = Unavailable("{} answers with more than {} bytes", Peer(), limits_.body_bytes_max);
        return;
      }
      if (Failed("gives no answer of HTTP; is it an HTTP port?", error)) return;
      reply_ = Reply{static_cast<int>(parser_.get().result_int()), parser_.get().body()};
    });
  }

  const Url url_;
  const CallLimits& limits_;
  const steady_clock::time_point deadline_;
  asio::io_context context_;
  beast::tcp_stream stream_{context_};
  asio::ssl::context context_tls_{asio::ssl::context::tls_client};
  std::optional<asio::ssl::stream<beast::tcp_stream&>> tls_;
  CallRequest request_;
  beast::flat_buffer buffer_;
  beast::http::response_parser<beast::http::string_body> parser_;
  std::optional<Reply> reply_;
  absl::Status error_;
};

absl::StatusOr<Url> UrlAt(std::string_view address, std::string_view path) {
  FATHOM_ASSIGN_OR_RETURN(HostPort place, ParseHostPort(std::string(address)));
  return Url{std::move(place.host), place.port, std::string(path)};
}

// Asio throws if descriptors or memory are short.
absl::StatusOr<Reply> Call(const Url& url, CallRequest request, const CallLimits& limits) {
  try {
    return Exchange(url, std::move(request), limits).Run();
  } catch (const std::exception& error) {
    return Unavailable("{} is not called: {}", FormatHostPort(url.host, url.port), error.what());
  }
}

}  // namespace

absl::StatusOr<Url> ParseUrl(std::string_view url) {
  constexpr std::string_view kScheme = "http://";
  if (!url.starts_with(kScheme)) {
    return Invalid("'{}' is not a URL of the form http://HOST:PORT/PATH{}", url,
                   url.starts_with("https://") ? "; https is not supported: use a server on this "
                                                 "machine or in this network"
                                               : "");
  }
  const std::string_view rest = url.substr(kScheme.size());
  const size_t slash = std::min(rest.find('/'), rest.size());
  const std::string_view address = rest.substr(0, slash);
  const std::string_view target = rest.substr(slash);
  // Such a character would end the request's line, or its header.
  const auto printable = [](char c) { return c > ' ' && c < 0x7f; };
  if (!std::ranges::all_of(target, printable)) {
    return Invalid(
        "the path of a URL has a space, or a character that is not ASCII; write it as "
        "%XX");
  }
  const bool has_port = address.find(':', address.find(']') + 1) != std::string_view::npos;
  auto parsed = UrlAt(has_port ? std::string(address) : fmt::format("{}:80", address), target);
  if (!parsed.ok()) return Annotate(parsed.status(), url);
  return parsed;
}

absl::StatusOr<Reply> Get(const Url& url, const CallLimits& limits) {
  return Call(url, CallRequest(beast::http::verb::get, url.target, 11), limits);
}

absl::StatusOr<Reply> GetAt(std::string_view address, std::string_view path,
                            const CallLimits& limits) {
  FATHOM_ASSIGN_OR_RETURN(const Url url, UrlAt(address, path));
  return Get(url, limits);
}

absl::StatusOr<Reply> Post(const Url& url, const std::string& content_type, std::string body,
                           const CallLimits& limits) {
  CallRequest request(beast::http::verb::post, url.target, 11);
  request.set(beast::http::field::content_type, content_type);
  request.body() = std::move(body);
  request.prepare_payload();
  return Call(url, std::move(request), limits);
}

}  // namespace fathom::http
