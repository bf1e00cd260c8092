// tests/cli/model_shape.h: loads the configurations of published models by name.
#pragma once

#include <string>

#include "modeling/config/model_config.h"

namespace fathom::client {

// models/shapes/<name>.json
inline ModelConfig Shape(const std::string& name) {
  return *ReadModelConfig(std::string(FATHOM_SOURCE_DIR) + "/models/shapes/" + name + ".json");
}

}  // namespace fathom::client
