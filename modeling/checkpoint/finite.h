// modeling/checkpoint/finite.h: where an array of stored values holds an infinity or a NaN. Pure;
// any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "modeling/config/model_config.h"

namespace fathom::worker {

// Index of the first element that is not finite; nullopt: all are. `data`: `count` elements,
// About 20 bytes a nanosecond from cache.
std::optional<int64_t> FindNonFinite(StoredType type, const std::byte* data, int64_t count);

}  // namespace fathom::worker
