#include "modeling/spec/device_kinds.h"

#include <algorithm>

#include "common/status.h"

namespace fathom {
namespace {

constexpr AttentionKind kCpuAttention[] = {AttentionKind::kGrouped};
constexpr MlpKind kCpuMlp[] = {MlpKind::kDense, MlpKind::kSquaredRelu};
constexpr AttentionKind kGpuAttention[] = {AttentionKind::kGrouped};
constexpr MlpKind kGpuMlp[] = {MlpKind::kDense};

constexpr DeviceKinds kCpu = {"the CPU", kCpuAttention, kCpuMlp, "--device cuda"};
constexpr DeviceKinds kGpu = {"a GPU", kGpuAttention, kGpuMlp, "--device cpu"};

template <class Kind>
bool Has(std::span<const Kind> kinds, Kind kind) {
  return std::find(kinds.begin(), kinds.end(), kind) != kinds.end();
}

}  // namespace

const DeviceKinds& CpuKinds() { return kCpu; }
const DeviceKinds& GpuKinds() { return kGpu; }

std::string_view NameOf(AttentionKind kind) {
  switch (kind) {
    case AttentionKind::kGrouped:
      return "grouped";
  }
  return "unknown";
}

std::string_view NameOf(MlpKind kind) {
  switch (kind) {
    case MlpKind::kDense:
      return "dense";
    case MlpKind::kSquaredRelu:
      return "squared-ReLU";
  }
  return "unknown";
}

absl::Status CheckDeviceRuns(const ModelSpec& spec, const DeviceKinds& device) {
  const auto refuse = [&](size_t layer, std::string_view kind, std::string_view what) {
    return Invalid("{}: layer {} has {} {}, which {} does not compute in this version; use {}",
                   spec.architecture, layer, kind, what, device.device, device.way_out);
  };
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    const LayerSpec& layer = spec.layers[i];
    if (!Has(device.attention, layer.attention.kind)) {
      return refuse(i, NameOf(layer.attention.kind), "attention");
    }
    if (!Has(device.mlp, layer.mlp.kind)) {
      return refuse(i, fmt::format("a {}", NameOf(layer.mlp.kind)), "MLP");
    }
  }
  return absl::OkStatus();
}

}  // namespace fathom
