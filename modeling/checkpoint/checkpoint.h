// modeling/checkpoint/checkpoint.h: a model folder's weights, validated as a whole before a byte of
// data is read, then loaded slice by slice. OpenCheckpoint() reads the headers of model.safetensors
// or, where there is none, of the shards that model.safetensors.index.json names, or the manifest
// of a flat file (modeling/checkpoint/raw_checkpoint.h), and compares each tensor with what the
// configuration's architecture expects; Load() copies a slice out and refuses values that are not
// finite. Thread: const functions may run in several threads.
//
// Errors, all of the model folder's making (main exits 66): NOT_FOUND for a missing file,
// INVALID_ARGUMENT for a header, index or configuration that does not fit, DATA_LOSS for a value
// that is not finite and a file that is shorter than its header says. Each names file, tensor,
// found, expected and the way out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "modeling/config/model_config.h"
#include "modeling/spec/rank_model.h"

namespace fathom::worker {

class WeightFile;

// An owned copy of a tensor's slice: [rows][cols] row-major in the stored type, no padding. 64-byte
// aligned.
class HostTensor {
 public:
  HostTensor() = default;
  // Zero-filled is not promised.
  HostTensor(StoredType type, int64_t rows, int64_t cols);
  StoredType type() const { return type_; }
  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  int64_t bytes() const { return rows_ * cols_ * BytesOf(type_); }
  const std::byte* data() const { return data_.get(); }
  std::byte* data() { return data_.get(); }

 private:
  struct Free {
    void operator()(std::byte* p) const;
  };
  StoredType type_ = StoredType::kF32;
  int64_t rows_ = 0, cols_ = 0;
  std::unique_ptr<std::byte[], Free> data_;
};

// A tensor's bytes in a file, row-major in the stored type.
struct FileRange {
  const WeightFile* file = nullptr;  // The checkpoint's.
  StoredType type = StoredType::kF32;
  uint64_t offset = 0;
  uint64_t bytes = 0;
};

// A random tensor: kernels::DummyValue(key, element), or 1 everywhere.
struct DummyTensor {
  uint64_t key = 0;
  bool is_ones = false;
};

class Checkpoint {
 public:
  virtual ~Checkpoint() = default;

  // Element type of every matrix. Vectors (norms and biases), which are computed with in fp32, may
  // each have a type of their own.
  virtual StoredType stored_type() const = 0;
  // Hex SHA-256 that stands for the weights in fingerprints (docs/ARCHITECTURE.md, "Fingerprints").
  virtual const std::string& weights_digest() const = 0;
  // Slice of the tensor called `name` in the model's ExpectedTensors. REQUIRES: it is one
  // of them and the slice lies inside of it, not empty.
  virtual absl::StatusOr<HostTensor> Load(std::string_view name,
                                          const TensorSlice& slice) const = 0;
  // For loaders that bring weights to a device by another way than Load, one of these is given for
  // each expected tensor. Neither looks at values.
  virtual std::optional<FileRange> Locate(std::string_view /*name*/) const { return std::nullopt; }
  virtual std::optional<DummyTensor> Dummy(std::string_view /*name*/) const { return std::nullopt; }
};

// kAuto: what the folder has; two checkpoints are refused.
enum class LoadFormat { kAuto, kSafetensors, kRaw, kDummy };
// "auto", "safetensors", "raw" and "dummy"; others are refused by name.
absl::StatusOr<LoadFormat> ParseLoadFormat(std::string_view name);

// `model` is a model folder, or for kDummy also a configuration file alone. kDummy reads no
// weights: values are N(0, 0.02) by a counter-based generator (norm weights 1), a function of
// (tensor, element, seed) whatever the slice, stored as config.stored_type (bf16 without one).
// REQUIRES: `config` was parsed from `model`.
absl::StatusOr<std::unique_ptr<Checkpoint>> OpenCheckpoint(const std::filesystem::path& model,
                                                           const ModelConfig& config,
                                                           LoadFormat format = LoadFormat::kAuto,
                                                           uint64_t dummy_seed = 0);

}  // namespace fathom::worker
