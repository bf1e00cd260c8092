// worker/comm/peer_handle.h: what a rank tells the others about its peer region, as opaque bytes
// that GroupExchange carries. The bytes come from another process, so nothing in them is trusted:
// a bad length, version or value is INVALID_ARGUMENT, and the message names the rank. Pure.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/status.h"
#include "kernels/cuda/comm/peer_region.h"
#include "kernels/tensor.h"

namespace fathom::worker {

struct PeerHandle {
  std::string build;  // The version of the program; at most 200 bytes.
  int rank = 0;
  kernels::DType dtype = kernels::DType::kBf16;
  kernels::cuda::PeerRegionSizes sizes;
  std::array<uint8_t, 16> device = {};  // The UUID.
  uint64_t process = 0;  // A random number of the process, which recognizes its own regions.
  uint64_t address = 0;  // Of the region, in that process.
  std::array<uint8_t, 64> memory = {};  // The driver's handle.
  bool operator==(const PeerHandle&) const = default;
};

std::string EncodePeerHandle(const PeerHandle& handle);
absl::StatusOr<PeerHandle> DecodePeerHandle(std::string_view bytes);

// The handles of all ranks, in rank order. INVALID_ARGUMENT: not as many as ranks, or a rank has
// bad bytes, another rank's, another build, element type or sizes. `own` is this rank's.
absl::StatusOr<std::vector<PeerHandle>> CheckPeerHandles(std::span<const std::string> all,
                                                         const PeerHandle& own);

}  // namespace fathom::worker
