#include "rpc/frame_counter.h"

#include <algorithm>
#include <cstring>

namespace fathom::rpc {
namespace {

constexpr uint8_t kHeaders = 1, kSettings = 4, kPing = 6, kContinuation = 9;
constexpr uint8_t kEndHeaders = 4;

}  // namespace

void FrameCounter::Feed(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    if (skip_ > 0) {
      const auto skipped = std::min(static_cast<size_t>(skip_), bytes.size());
      skip_ -= static_cast<int64_t>(skipped);
      bytes = bytes.subspan(skipped);
      continue;
    }
    const size_t taken = std::min(header_.size() - header_size_, bytes.size());
    std::memcpy(header_.data() + header_size_, bytes.data(), taken);
    header_size_ += taken;
    bytes = bytes.subspan(taken);
    if (header_size_ == header_.size()) Begin();
  }
}

void FrameCounter::Begin() {
  header_size_ = 0;
  skip_ = header_[0] << 16 | header_[1] << 8 | header_[2];
  const uint8_t type = header_[3];
  const uint8_t flags = header_[4];
  if (type == kHeaders || type == kContinuation) {
    unended_header_bytes_ = (flags & kEndHeaders) != 0 ? 0 : unended_header_bytes_ + skip_;
  }
  if (type == kSettings || type == kPing) ++controls_;
  if (type != kHeaders) return;
  const uint32_t stream = (uint32_t{header_[5]} << 24 | uint32_t{header_[6]} << 16 |
                           uint32_t{header_[7]} << 8 | uint32_t{header_[8]}) &
                          0x7fffffffU;
  if (stream <= last_stream_) return;
  last_stream_ = stream;
  ++streams_;
}

}  // namespace fathom::rpc
