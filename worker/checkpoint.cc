#include "worker/checkpoint.h"

#include <cstdlib>
#include <system_error>

#include "common/check.h"
#include "common/status.h"
#include "worker/checkpoint_impl.h"

namespace fathom::worker {

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
  if (name == "auto" || name == "safetensors") return LoadFormat::kSafetensors;
  if (name == "dummy") return LoadFormat::kDummy;
  return Invalid("--load-format {} is not supported; use auto, safetensors or dummy", name);
}

absl::StatusOr<std::unique_ptr<Checkpoint>> OpenCheckpoint(const std::filesystem::path& model,
                                                           const ModelConfig& config,
                                                           LoadFormat format, uint64_t dummy_seed) {
  if (format == LoadFormat::kDummy) return OpenDummy(model, config, dummy_seed);
  std::error_code error;
  if (!std::filesystem::is_directory(model, error)) {
    return NotFound("{}: is no folder with weights; use --load-format dummy for random ones",
                    model.string());
  }
  return OpenSafetensors(model, config);
}

}  // namespace fathom::worker
