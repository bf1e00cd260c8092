// rpc/frame_counter.h: counts the HTTP/2 frames that a client sends (RFC 9113, section 4.1), from
// its bytes in any pieces. It does not judge: what follows bytes that are no HTTP/2 has no meaning,
// and gRPC ends such a connection. Pure; one thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace fathom::rpc {

class FrameCounter {
 public:
  void Feed(std::span<const std::byte> bytes);

  // Streams that were opened: HEADERS with a higher stream id than all before.
  int64_t streams() const { return streams_; }
  // Frames that the server must answer or remember: SETTINGS and PING.
  int64_t controls() const { return controls_; }
  // Bytes of the header whose end did not come yet; 0 between headers.
  int64_t unended_header_bytes() const { return unended_header_bytes_; }

 private:
  void Begin();  // header_ is complete.

  // Bytes to skip: at first the connection's preface, then a frame's payload.
  int64_t skip_ = 24;
  std::array<uint8_t, 9> header_ = {};
  size_t header_size_ = 0;
  uint32_t last_stream_ = 0;
  int64_t streams_ = 0;
  int64_t controls_ = 0;
  int64_t unended_header_bytes_ = 0;
};

}  // namespace fathom::rpc
