// modeling/checkpoint/checkpoint.h: the weights of a model folder. They are checked as a whole
// before any data is read, and then loaded slice by slice. OpenCheckpoint() reads the headers: of
// model.safetensors, else of the shards that model.safetensors.index.json names, or the manifest of
// a flat file (modeling/checkpoint/raw_checkpoint.h). It compares each tensor with those that the
// configuration's architecture expects. Load() copies a slice and refuses values that are not
// finite. Thread: const functions may run in several threads.
//
// The model folder causes every error (main exits with 66): NOT_FOUND for a missing file,
// INVALID_ARGUMENT for a header, index or configuration that does not fit, DATA_LOSS for a value
// that is not finite and for a file that is shorter than its header says. Each message names the
// file, the tensor, what was found, what was expected and what to do.
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

namespace fathom {

class WeightFile;

// An owned copy of a tensor's slice: [rows][cols], row-major in the stored type, without padding,
// aligned to 64 bytes.
class HostTensor {
 public:
  HostTensor() = default;
  // The memory is not initialized.
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
  const WeightFile* file = nullptr;  // Owned by the checkpoint.
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

  // The element type of every matrix. Vectors (norms and biases) are widened to fp32, so each may
  // have its own type.
  virtual StoredType stored_type() const = 0;
  // Hex SHA-256 that stands for the weights in fingerprints (docs/ARCHITECTURE.md, "Fingerprints").
  virtual const std::string& weights_digest() const = 0;
  // A slice of the tensor `name`. REQUIRES: ExpectedTensors of the model has the name; the slice is
  // not empty and lies inside the tensor.
  virtual absl::StatusOr<HostTensor> Load(std::string_view name,
                                          const TensorSlice& slice) const = 0;
  // For loaders that do not use Load: for each expected tensor, one of the two functions gives a
  // value. Neither of them checks the tensor's values.
  virtual std::optional<FileRange> Locate(std::string_view /*name*/) const { return std::nullopt; }
  virtual std::optional<DummyTensor> Dummy(std::string_view /*name*/) const { return std::nullopt; }
};

// kAuto: the format that the folder has; a folder with two checkpoints is refused.
enum class LoadFormat { kAuto, kSafetensors, kRaw, kDummy };
// Accepts "auto", "safetensors", "raw" and "dummy"; the message for any other text repeats it.
absl::StatusOr<LoadFormat> ParseLoadFormat(std::string_view name);

// `model` is a model folder; for kDummy it may also be only a configuration file. kDummy reads no
// weights: the values are N(0, 0.02) from a counter-based generator (norm weights are 1), a
// function of (tensor, element, seed) that does not depend on the slice, stored as
// config.stored_type (bf16 if it has none). REQUIRES: `config` was parsed from `model`.
absl::StatusOr<std::unique_ptr<Checkpoint>> OpenCheckpoint(const std::filesystem::path& model,
                                                           const ModelConfig& config,
                                                           LoadFormat format = LoadFormat::kAuto,
                                                           uint64_t dummy_seed = 0);

}  // namespace fathom
