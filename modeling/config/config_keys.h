// modeling/config/config_keys.h: keys of configurations that are known not to change a result. Pure
// constants.
#pragma once

#include <span>

#include "modeling/config/config_fields.h"

namespace fathom::worker {

// Of config.json; those of generation_config.json stand in generation_config.cc.
std::span<const HarmlessKey> HarmlessConfigKeys();

}  // namespace fathom::worker
