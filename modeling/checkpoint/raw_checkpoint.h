// modeling/checkpoint/raw_checkpoint.h: a checkpoint as one flat file: weights.raw, and
// weights.json that says where each tensor lies in it:
//   {"alignment": 4096, "tensors": [{"name": "lm_head.weight", "dtype": "BF16",
//                                    "shape": [102400, 4096], "offset": 0}, ...]}
// Tensors are stored in the order of their offsets. Each begins at the first multiple of
// `alignment` after the end of the previous tensor, and the file ends with the last tensor. So
// there are no gaps and overlaps, as in safetensors, except for the alignment; it allows reads of
// whole pages that bypass the page cache. tests/tools/make_raw.py writes such a file. Pure; any
// thread. Errors as in modeling/checkpoint/safetensors.h.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "modeling/checkpoint/safetensors.h"

namespace fathom {

inline constexpr std::string_view kRawFile = "weights.raw";
inline constexpr std::string_view kRawManifest = "weights.json";

// The tensors by ascending offset. `file_bytes` is the size of weights.raw.
absl::StatusOr<std::vector<SafetensorsTensor>> ParseRawManifest(std::string_view json,
                                                                uint64_t file_bytes);

}  // namespace fathom
