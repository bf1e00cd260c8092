// modeling/checkpoint/checkpoint_check.h: do these files' headers hold exactly the tensors of a
// model? Pure: headers in, places out; every message names file, tensor, found,
// expected and the way out. Any thread.
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

namespace fathom::worker {

struct ShardHeader {
  std::string file;  // Name in the folder.
  std::vector<SafetensorsTensor> tensors;
};

inline constexpr std::string_view kIndexFile = "model.safetensors.index.json";

// Tensor name -> file name, from an index.
using WeightMap = std::map<std::string, std::string, std::less<>>;

// Parses an index. File names must be plain names that end with .safetensors.
absl::StatusOr<WeightMap> ParseWeightMap(std::string_view json);

struct TensorPlace {
  size_t shard = 0;
  const SafetensorsTensor* tensor = nullptr;  // In the shard's header.
  StoredType type = StoredType::kF32;         // Of a checked one, like the next.
  Precision precision = Precision::kMatrix;
};

struct CheckedTensors {
  StoredType type = StoredType::kF32;                      // Of every matrix.
  std::map<std::string, TensorPlace, std::less<>> places;  // Of exactly the expected tensors.
  // A head stored beside tied embeddings: it fits if its bytes are the embedding's.
  std::optional<TensorPlace> spare_head;
};

// `shards` outlive the result. `said`: the type that config.json names, if any. Without an index
// there is one shard and `index` is null.
absl::StatusOr<CheckedTensors> CheckTensors(const ModelSpec& spec, std::optional<StoredType> said,
                                            const std::vector<ShardHeader>& shards,
                                            const WeightMap* index);

}  // namespace fathom::worker
