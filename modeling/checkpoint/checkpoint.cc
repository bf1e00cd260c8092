#include "modeling/checkpoint/checkpoint.h"

#include <cstdlib>
#include <system_error>

#include "common/check.h"
#include "common/status.h"
#include "modeling/checkpoint/checkpoint_impl.h"
#include "modeling/checkpoint/raw_checkpoint.h"

namespace fathom {

HostTensor::HostTensor(StoredType type, int64_t rows, int64_t cols)
    : type_(type), rows_(rows), cols_(cols) {
  constexpr size_t kAlign = 64;
  FATHOM_CHECK(rows > 0 && cols > 0, "{} x {}", rows, cols);
  const size_t size = (static_cast<size_t>(bytes()) + kAlign - 1) / kAlign * kAlign;
  data_.reset(static_cast<std::byte*>(std::aligned_alloc(kAlign, size)));
  FATHOM_CHECK(data_ != nullptr, "no memory for {} bytes", size);
}

void HostTensor::Free::operator()(std::byte* p) const { std::free(p); }

absl::StatusOr<LoadFormat> ParseLoadFormat(std::string_view name) {
  if (name == "auto") return LoadFormat::kAuto;
  if (name == "safetensors") return LoadFormat::kSafetensors;
  if (name == "raw") return LoadFormat::kRaw;
  if (name == "dummy") return LoadFormat::kDummy;
  return Invalid("--load-format {} is not supported; use auto, safetensors, raw or dummy", name);
}

absl::StatusOr<std::unique_ptr<Checkpoint>> OpenCheckpoint(const std::filesystem::path& model,
                                                           const ModelConfig& config,
                                                           LoadFormat format, uint64_t dummy_seed) {
  if (format == LoadFormat::kDummy) return OpenDummy(config, dummy_seed);
  std::error_code error;
  if (!std::filesystem::is_directory(model, error)) {
    return NotFound("{}: is no folder with weights; use --load-format dummy for random ones",
                    model.string());
  }
  if (format == LoadFormat::kAuto) {
    const auto has = [&](std::string_view name) {
      return std::filesystem::exists(model / name, error);
    };
    const bool safetensors = has("model.safetensors") || has("model.safetensors.index.json");
    const bool raw = has(kRawManifest);
    if (safetensors && raw) {
      return Invalid(
          "{}: has two checkpoints, one of safetensors and a raw one ({}); choose by --load-format "
          "safetensors or --load-format raw, or move one of them out of the folder",
          model.string(), kRawManifest);
    }
    format = raw ? LoadFormat::kRaw : LoadFormat::kSafetensors;
  }
  return format == LoadFormat::kRaw ? OpenRaw(model, config) : OpenSafetensors(model, config);
}

}  // namespace fathom
