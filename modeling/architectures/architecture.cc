#include "modeling/architectures/architecture.h"

#include <algorithm>
#include <array>

#include "common/check.h"

namespace fathom {

// Each is defined in modeling/architectures/<name>.cc.
extern const Architecture kArcee;
extern const Architecture kLlama;
extern const Architecture kQwen2;
extern const Architecture kQwen3;

namespace {

const std::array kTable = {
    &kArcee,
    &kLlama,
    &kQwen2,
    &kQwen3,
};

}  // namespace

std::span<const Architecture* const> Architectures() { return kTable; }

const Architecture* FindArchitecture(std::string_view name) {
  const auto found = std::find_if(kTable.begin(), kTable.end(),
                                  [&](const Architecture* row) { return row->name == name; });
  return found == kTable.end() ? nullptr : *found;
}

ModelSpec SpecOf(const ModelConfig& config) {
  const Architecture* architecture = FindArchitecture(config.architecture);
  FATHOM_CHECK(architecture != nullptr, "{} was not parsed", config.architecture);
  return architecture->spec(config);
}

}  // namespace fathom
