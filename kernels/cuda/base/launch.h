// kernels/cuda/base/launch.h: what every CUDA op needs to launch a kernel: the stream, how the
// launch is chained to the previous kernel, and the device. Host code; it needs only the header of
// the CUDA runtime.
//
// Every kernel in kernels/cuda follows three rules. Therefore any kernel may follow any other with
// programmatic dependent launch (LaunchContext::dependent), and a kernel that breaks a rule may
// read data that is not written yet:
//   1. Before `griddepcontrol.wait` a kernel touches only global memory that is constant while a
//      step runs: weights, rotary tables, the step's lengths and block tables, KV of earlier steps
//      (and fault words, by atomics). A step's first kernel starts when all earlier work has ended.
//      Each thread block waits before its first other access, always, so the end of a kernel
//      implies the end of all kernels before it.
//   2. A kernel calls `griddepcontrol.launch_dependents` as soon as its own loads are issued; a
//      kernel that meets other ranks calls it first (kernels/cuda/comm/peer_barrier.cuh).
//   3. A launch allocates nothing, synchronizes nothing and may be captured into a graph.
// The functions return the error of the launch. An unsupported shape is our bug, because PickConfig
// and the decoder exclude it; the op returns cudaErrorInvalidValue before it launches anything.
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

// The element types of weights, activations and KV blocks on the device are kBf16 and kF16.
// Accumulators and logits are fp32.
constexpr bool IsDeviceType(DType dtype) { return dtype == DType::kBf16 || dtype == DType::kF16; }

// Bits of a row's fault word: why the row has no token. Kernels set bits and never clear them.
enum FaultBit : int {
  kFaultNonFinite = 1,
  kFaultTokenRange = 2,
  kFaultBlockRange = 4,
};

// Kernels check for row faults in every normal build. A build without the checks (tests/gpu/bundle
// --unflagged) exists only to measure their cost; it does not check ids, positions and blocks.
#ifndef FATHOM_ROW_FAULTS
#define FATHOM_ROW_FAULTS 1
#endif
inline constexpr bool kRowFaults = FATHOM_ROW_FAULTS != 0;

// Tokens of a KV block on the device. A block of a plane is [kv_head][token][head_dim].
inline constexpr int kBlockTokens = 64;

}  // namespace fathom::kernels::cuda
