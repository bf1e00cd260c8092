// modeling/config/config_keys.h: keys of configurations that do not change a result. Pure
// constants.
#pragma once

#include <span>

#include "modeling/config/config_fields.h"

namespace fathom {

// For config.json. generation_config.cc has the list for generation_config.json.
std::span<const HarmlessKey> HarmlessConfigKeys();

}  // namespace fathom
