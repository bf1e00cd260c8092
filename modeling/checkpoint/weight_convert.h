// modeling/checkpoint/weight_convert.h: a stored weight in the device's type, rounded to nearest
// even. Pure; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "kernels/tensor.h"
#include "modeling/config/model_config.h"

namespace fathom::worker {

kernels::DType DTypeOfStored(StoredType type);

// Writes `count` values of `from` as `type` to `target`; the arrays do not overlap. NaN and
// infinities stay what they are. Returns the index of the first value that is finite and becomes an
// infinity, which is what `type` cannot hold; nullopt: none. Some bytes a nanosecond.
std::optional<int64_t> ConvertWeights(StoredType from, const std::byte* source, kernels::DType type,
                                      std::byte* target, int64_t count);

}  // namespace fathom::worker
