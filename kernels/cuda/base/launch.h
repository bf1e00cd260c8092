// kernels/cuda/base/launch.h: what every CUDA op shares: where it runs, how it is chained to the
// kernel before it, and what it returns. Host code; needs the CUDA runtime's header only.
//
// Every kernel of this folder obeys three rules, so that any of them may follow any other with
// programmatic dependent launch (LaunchContext::dependent):
//   1. Before `griddepcontrol.wait` it touches no global memory but what is constant while a step
//      runs, whose first kernel starts when all before it has ended: weights, rotary tables, the
//      step's lengths and block tables, KV of earlier steps (and fault words, by atomics). Each
//      thread block waits before its first other access, always, so that a kernel's end implies
//      the end of all before it.
//   2. It calls `griddepcontrol.launch_dependents` as soon as its own loads are under way.
//   3. It allocates nothing, synchronizes nothing and may be captured into a graph.
// Functions return what the launch returned; a shape that an op does not do is our bug (PickConfig
// and the decoder see to it) and comes back as cudaErrorInvalidValue before anything is launched.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/tensor.h"

namespace fathom::kernels::cuda {

struct LaunchContext {
  cudaStream_t stream = nullptr;
  bool dependent = false;  // May start while the stream's previous kernel still runs.
  int sms = 0;             // Multiprocessors of the device.
  int sm = 0;              // Compute capability: 80, 90.
};

// Element types of weights, activations and KV blocks on the device: kBf16 or kF16. Accumulators
// and logits are fp32.
constexpr bool IsDeviceType(DType dtype) { return dtype == DType::kBf16 || dtype == DType::kF16; }

// Why a row has no token: bits of a row's fault word, which kernels set and never clear.
enum FaultBit : int {
  kFaultNonFinite = 1,
  kFaultTokenRange = 2,
  kFaultBlockRange = 4,
};

// The row fault flag is always on; a build without it (tests/gpu/bundle --unflagged) is there to
// measure what it costs, and takes ids, positions and blocks as they come.
#ifndef FATHOM_ROW_FAULTS
#define FATHOM_ROW_FAULTS 1
#endif
inline constexpr bool kRowFaults = FATHOM_ROW_FAULTS != 0;

// Tokens of a KV block on the device. A block of a plane is [kv_head][token][head_dim].
inline constexpr int kBlockTokens = 64;

}  // namespace fathom::kernels::cuda
