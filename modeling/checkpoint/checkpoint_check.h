// modeling/checkpoint/checkpoint_check.h: checks that the headers of a checkpoint's files hold
// exactly the tensors of a model. Pure: headers in, places out. Every message names the file, the
// tensor, what was found, what was expected and what to do. Any thread.
#pragma once

#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "modeling/checkpoint/safetensors.h"
#include "modeling/config/model_config.h"
#include "modeling/spec/model_spec.h"

namespace fathom {

struct ShardHeader {
  std::string file;  // Name in the folder.
  std::vector<SafetensorsTensor> tensors;
};

inline constexpr std::string_view kIndexFile = "model.safetensors.index.json";

// Tensor name -> file name, from an index.
using WeightMap = std::map<std::string, std::string, std::less<>>;

// Parses an index. Every file name must be a plain name that ends with .safetensors.
absl::StatusOr<WeightMap> ParseWeightMap(std::string_view json);

struct TensorPlace {
  size_t shard = 0;
  const SafetensorsTensor* tensor = nullptr;  // In the shard's header.
  StoredType type = StoredType::kF32;         // Set, like `precision`, once the tensor is checked.
  Precision precision = Precision::kMatrix;
};

struct CheckedTensors {
  StoredType type = StoredType::kF32;  // The type of every matrix.
  // The places of exactly the expected tensors.
  std::map<std::string, TensorPlace, std::less<>> places;
  // An LM head that is stored although the embeddings are tied. It is accepted if its bytes are the
  // embedding's.
  std::optional<TensorPlace> spare_head;
};

// `shards` outlive the result. `config_type` is the type that config.json names, if any. Without an
// index there is one shard and `index` is null.
absl::StatusOr<CheckedTensors> CheckTensors(const ModelSpec& spec,
                                            std::optional<StoredType> config_type,
                                            const std::vector<ShardHeader>& shards,
                                            const WeightMap* index);

}  // namespace fathom
