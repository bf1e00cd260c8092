// common/string_hash.h: transparent hash and equality, so that a map with std::string keys can be
// searched by std::string_view: absl::flat_hash_map<std::string, V, StringHash, StringEq>.
#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace fathom {

struct StringHash {
  using is_transparent = void;
  size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
};

struct StringEq {
  using is_transparent = void;
  bool operator()(std::string_view a, std::string_view b) const { return a == b; }
};

}  // namespace fathom
