// Random weights for planning and benchmarks. Only config.json is read.
#include <cstring>
#include <map>

#include "common/check.h"
#include "common/status.h"
#include "kernels/dummy_weight.h"
#include "kernels/narrow.h"
#include "modeling/architectures/architecture.h"
#include "modeling/checkpoint/checkpoint_impl.h"
#include "modeling/checkpoint/model_digest.h"

namespace fathom {
namespace {

using kernels::DType;

DType DTypeOf(StoredType type) {
  return type == StoredType::kBf16  ? DType::kBf16
         : type == StoredType::kF16 ? DType::kF16
                                    : DType::kF32;
}

class DummyCheckpoint : public Checkpoint {
 public:
  DummyCheckpoint(const ModelConfig& config, uint64_t seed, std::string digest)
      : type_(config.stored_type.value_or(StoredType::kBf16)), digest_(std::move(digest)) {
    for (const Parameter& tensor : ExpectedTensors(SpecOf(config))) {
      const DummyTensor values{kernels::DummyKey(seed, tensors_.size()), IsNorm(tensor.role)};
      tensors_.emplace(tensor.name, Entry{values, tensor.cols()});
    }
  }

  StoredType stored_type() const override { return type_; }
  const std::string& weights_digest() const override { return digest_; }

  absl::StatusOr<HostTensor> Load(std::string_view name, const TensorSlice& slice) const override {
    const Entry& entry = Find(name);
    const DType dtype = DTypeOf(type_);
    HostTensor target(type_, slice.rows(), slice.cols());
    std::byte* next = target.data();
    for (int64_t row = slice.row_begin; row < slice.row_end; ++row) {
      for (int64_t col = slice.col_begin; col < slice.col_end; ++col, next += BytesOf(type_)) {
        const float value = entry.values.is_ones
                                ? 1.0f
                                : kernels::DummyValue(entry.values.key, row * entry.cols + col);
        const uint32_t bits = kernels::Narrow(dtype, value);  // Little-endian: the low bytes.
        std::memcpy(next, &bits, static_cast<size_t>(BytesOf(type_)));
      }
    }
    return target;
  }

  std::optional<DummyTensor> Dummy(std::string_view name) const override {
    return Find(name).values;
  }

 private:
  struct Entry {
    DummyTensor values;
    int64_t cols = 0;  // Columns of the whole tensor.
  };

  const Entry& Find(std::string_view name) const {
    const auto found = tensors_.find(name);
    FATHOM_CHECK(found != tensors_.end(), "{}", name);
    return found->second;
  }

  const StoredType type_;
  const std::string digest_;
  std::map<std::string, Entry, std::less<>> tensors_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Checkpoint>> OpenDummy(const ModelConfig& config, uint64_t seed) {
  DigestBuilder digest;
  digest.Add("dummy");
  digest.Add(config.source.text);
  digest.Add(seed);
  return std::make_unique<DummyCheckpoint>(config, seed, digest.Finish());
}

}  // namespace fathom
