// modeling/config/config_keys.h: keys of configurations that are known not to change a result. Pure
// constants.
#pragma once

#include <span>

#include "modeling/config/config_fields.h"

namespace fathom::worker {

// Of config.json and of generation_config.json.
std::span<const HarmlessKey> HarmlessConfigKeys();
std::span<const HarmlessKey> HarmlessGenerationKeys();

}  // namespace fathom::worker
