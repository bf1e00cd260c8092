// modeling/checkpoint/safetensors.h: the header of a safetensors file, checked so that its offsets
// can be trusted. A file is 8 bytes of header length (little-endian), the header (JSON, padded with
// spaces), then data. A header is accepted only if its tensors fill the data without gap or
// overlap, end with the file, and each has the number of bytes of its shape and dtype. Only the
// free text in __metadata__ is not checked. Pure; any thread. Errors: INVALID_ARGUMENT; DATA_LOSS
// if the file is shorter than its header says.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace fathom {

inline constexpr uint64_t kSafetensorsPrefixBytes = 8;
inline constexpr uint64_t kSafetensorsHeaderBytesMax = 100'000'000;  // The format's own limit.

inline constexpr size_t kTensorDimensionsMax = 8;  // The limit for a tensor in any file.

struct SafetensorsTensor {
  std::string name;
  std::string dtype;  // "BF16", "F32", ...: one that the format knows.
  std::vector<int64_t> shape;
  uint64_t begin = 0, end = 0;  // Bytes in the file.
};

// The header's length, from the file's first 8 bytes. It is checked against the size of the file.
absl::StatusOr<uint64_t> SafetensorsHeaderBytes(std::string_view prefix, uint64_t file_bytes);

// The tensors by ascending offset. REQUIRES: `header` is the file's header without the prefix.
absl::StatusOr<std::vector<SafetensorsTensor>> ParseSafetensorsHeader(std::string_view header,
                                                                      uint64_t file_bytes);

// The bytes of a tensor. INVALID_ARGUMENT for an unknown dtype and for a size beyond 64 bits; the
// message names the tensor.
absl::StatusOr<uint64_t> TensorBytes(const SafetensorsTensor& tensor);

// "[4096, 256]", for messages.
std::string ShapeText(std::span<const int64_t> shape);

}  // namespace fathom
