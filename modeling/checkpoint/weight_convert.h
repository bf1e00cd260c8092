// modeling/checkpoint/weight_convert.h: converts stored weights to the device's type, rounded to
// nearest even. Pure; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "kernels/tensor.h"
#include "modeling/config/model_config.h"

namespace fathom {

kernels::DType DTypeOfStored(StoredType type);

// Writes `count` values of type `from` to `target` as `type`; the arrays do not overlap. NaN and
// infinities are kept. Returns the index of the first finite value that becomes an infinity because
// `type` cannot hold it; nullopt: none. The speed is some bytes a nanosecond.
std::optional<int64_t> ConvertWeights(StoredType from, const std::byte* source, kernels::DType type,
                                      std::byte* target, int64_t count);

}  // namespace fathom
