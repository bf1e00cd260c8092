#include "http/live_exchange.h"

#include <fmt/format.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http/status.hpp>
#include <chrono>
#include <iterator>
#include <utility>

#include "common/check.h"

namespace fathom::http {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;

constexpr auto kAwaitTuple = asio::as_tuple(asio::use_awaitable);
// The most bytes of a next request that are kept while an answer is made.
constexpr size_t kNextBytesMax = 16 << 10;
constexpr size_t kReadBytes = 2048;

// No header of ours can end its line early, whatever text it was made of.
void AppendHeader(std::string_view name, std::string_view value, std::string* to) {
  *to += name;
  *to += ": ";
  for (const char c : value) *to += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
  *to += "\r\n";
}

}  // namespace

std::string HeadOf(const Response& answer, const ExchangeOptions& options, int64_t body_bytes) {
  const auto status = boost::beast::http::int_to_status(static_cast<unsigned>(answer.status));
  const auto reason = boost::beast::http::obsolete_reason(status);
  std::string head = fmt::format("HTTP/1.1 {} {}\r\n", answer.status,
                                 std::string_view(reason.data(), reason.size()));
  AppendHeader("Content-Type", answer.content_type, &head);
  AppendHeader("Cache-Control", "no-store", &head);
  AppendHeader("X-Content-Type-Options", "nosniff", &head);
  for (const auto& [name, value] : answer.headers) AppendHeader(name, value, &head);
  if (body_bytes >= 0) {
    AppendHeader("Content-Length", fmt::format("{}", body_bytes), &head);
  } else if (options.chunked) {
    AppendHeader("Transfer-Encoding", "chunked", &head);
  }
  const bool stays = options.keep_alive && (body_bytes >= 0 || options.chunked);
  AppendHeader("Connection", stays ? "keep-alive" : "close", &head);
  return head += "\r\n";
}

// ---- Any thread

void LiveExchange::SetSink(std::shared_ptr<ExchangeSink> sink) {
  Post([self = shared_from_this(), sink = std::move(sink)] {
    self->sink_ = sink;
    if (self->hung_up_) sink->OnHangUp();
  });
}

void LiveExchange::Answer(Response answer) {
  Post([self = shared_from_this(), answer = std::move(answer)] {
    FATHOM_CHECK(!self->begun_ && !self->ended_);
    if (self->options_.answered) self->options_.answered(answer.status);
    self->out_ = HeadOf(answer, self->options_, static_cast<int64_t>(answer.body.size()));
    if (!self->options_.is_head) self->out_ += answer.body;
    self->ended_ = true;
    self->Wake();
  });
}

void LiveExchange::Begin(Response head) {
  Post([self = shared_from_this(), head = std::move(head)] {
    FATHOM_CHECK(!self->begun_ && !self->ended_);
    self->begun_ = true;
    if (self->options_.answered) self->options_.answered(head.status);
    self->out_ = HeadOf(head, self->options_, -1);
    self->closes_ = !self->options_.chunked;
  });
}

void LiveExchange::Write(std::string bytes) {
  Post([self = shared_from_this(), bytes = std::move(bytes)] {
    FATHOM_CHECK(self->begun_ && !self->ended_ && !self->write_owed_);
    self->AppendChunk(bytes);
    self->write_owed_ = true;
    self->Wake();
  });
}

void LiveExchange::End(std::string bytes) {
  Post([self = shared_from_this(), bytes = std::move(bytes)] {
    FATHOM_CHECK(self->begun_ && !self->ended_);
    self->AppendChunk(bytes);
    if (self->options_.chunked) self->out_ += "0\r\n\r\n";
    self->ended_ = true;
    self->Wake();
  });
}

void LiveExchange::Abort() {
  Post([self = shared_from_this()] {
    FATHOM_CHECK(!self->ended_);
    self->ended_ = true;
    self->closes_ = true;
    self->out_.clear();
    if (self->connection_ != nullptr) self->connection_->stream.close();
    self->Wake();
  });
}

void LiveExchange::Break() {
  Post([self = shared_from_this()] {
    if (self->connection_ == nullptr) return;
    self->connection_->stream.close();
    self->HangUp();
  });
}

// ---- The server's thread

void LiveExchange::AppendChunk(const std::string& bytes) {
  if (bytes.empty()) return;  // An empty chunk would end the stream.
  if (!options_.chunked) {
    out_ += bytes;
    return;
  }
  fmt::format_to(std::back_inserter(out_), "{:x}\r\n", bytes.size());
  out_ += bytes;
  out_ += "\r\n";
}

void LiveExchange::Wake() {
  woken_ = true;
  if (wake_ != nullptr) wake_->cancel();
}

// As in server.cc, everything that is awaited has a name (g++ 12).
asio::awaitable<void> LiveExchange::Wait() {
  while (!woken_) {
    wake_->expires_at(asio::steady_timer::time_point::max());
    co_await wake_->async_wait(kAwaitTuple);
  }
  woken_ = false;
}

void LiveExchange::HangUp() {
  if (hung_up_.exchange(true)) return;
  if (!ended_ && sink_) sink_->OnHangUp();
  Wake();
}

void LiveExchange::Watch() {
  boost::beast::flat_buffer& buffer = connection_->buffer;
  if (buffer.size() >= kNextBytesMax) return;
  watching_ = true;
  connection_->stream.async_read_some(
      buffer.prepare(kReadBytes), [self = shared_from_this()](error_code error, size_t bytes) {
        self->watching_ = false;
        self->connection_->buffer.commit(bytes);
        if (self->ended_) return self->Wake();  // Run goes on, and reads what there is.
        if (error) return self->HangUp();
        self->Watch();
      });
}

// Writes `out_`. False: the client cannot be reached.
asio::awaitable<bool> LiveExchange::WriteOut() {
  const std::string bytes = std::exchange(out_, {});
  // A stream's client that reads nothing is ended by Break; the last write has a limit of its own.
  if (ended_) {
    connection_->stream.expires_after(std::chrono::milliseconds(options_.answer_ms));
  } else {
    connection_->stream.expires_never();
  }
  const auto buffer = asio::buffer(bytes);
  const auto [error, written] =
      co_await asio::async_write(connection_->stream, buffer, kAwaitTuple);
  co_return !error;
}

asio::awaitable<bool> LiveExchange::Run(Connection* connection) {
  connection_ = connection;
  asio::steady_timer wake(connection->stream.get_executor());
  wake_ = &wake;
  connection->stream.expires_never();
  Watch();
  while (!ended_ || (!out_.empty() && !hung_up_)) {
    if (hung_up_) out_.clear();
    // The head of a stream waits for the first bytes after it.
    if (!write_owed_ && !ended_) {
      co_await Wait();
      continue;
    }
    bool written = false;
    if (!hung_up_) written = co_await WriteOut();
    if (!written) HangUp();
    if (std::exchange(write_owed_, false) && sink_) sink_->OnWritten(written);
  }
  const bool stays = !hung_up_ && !closes_;
  error_code ignored;
  if (watching_) connection->stream.socket().cancel(ignored);
  while (watching_) co_await Wait();
  wake_ = nullptr;
  connection_ = nullptr;
  if (const auto sink = std::exchange(sink_, nullptr)) sink->OnDone();
  co_return stays;
}

}  // namespace fathom::http
