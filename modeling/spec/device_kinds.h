// modeling/spec/device_kinds.h: which kinds of attention and MLP a device computes. Both memory
// plans ask before they count a byte, so that the worker's refusal and `fathom plan` say the same.
// Pure; any thread.
#pragma once

#include <span>
#include <string_view>

#include "absl/status/status.h"
#include "modeling/spec/model_spec.h"

namespace fathom::worker {

struct DeviceKinds {
  std::string_view device;  // "the CPU", "a GPU"
  std::span<const AttentionKind> attention;
  std::span<const MlpKind> mlp;
  std::string_view way_out;  // For a model that the device does not compute.
};

// What worker/cpu and worker/cuda compute.
const DeviceKinds& CpuKinds();
const DeviceKinds& GpuKinds();

// "grouped", "dense".
std::string_view NameOf(AttentionKind kind);
std::string_view NameOf(MlpKind kind);

// INVALID_ARGUMENT for a layer of a kind that `device` does not compute, with architecture, layer,
// kind, device and the way out.
absl::Status CheckDeviceRuns(const ModelSpec& spec, const DeviceKinds& device);

}  // namespace fathom::worker
