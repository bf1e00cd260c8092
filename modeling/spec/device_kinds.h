// modeling/spec/device_kinds.h: which kinds of attention and MLP a device computes. Both memory
// plans check this first, so a worker and `fathom plan` refuse a model with the same message. Pure;
// any thread.
#pragma once

#include <span>
#include <string_view>

#include "absl/status/status.h"
#include "modeling/spec/model_spec.h"

namespace fathom {

struct DeviceKinds {
  std::string_view device;  // "the CPU", "a GPU"
  std::span<const AttentionKind> attention;
  std::span<const MlpKind> mlp;
  std::string_view way_out;  // The advice for a model that the device cannot compute.
};

// What worker/cpu and worker/cuda can compute.
const DeviceKinds& CpuKinds();
const DeviceKinds& GpuKinds();

// "grouped"; "dense", "squared-ReLU".
std::string_view NameOf(AttentionKind kind);
std::string_view NameOf(MlpKind kind);

// INVALID_ARGUMENT for a layer of a kind that `device` cannot compute. The message names the
// architecture, the layer, the kind, the device and the way out.
absl::Status CheckDeviceRuns(const ModelSpec& spec, const DeviceKinds& device);

}  // namespace fathom
