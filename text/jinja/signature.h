// text/jinja/signature.h: which arguments a filter, test, method or function takes. Calls that a
// template spells out are checked when it is parsed (resolve.h), all others when they are made.
// Pure.
#pragma once

#include <iterator>
#include <string>
#include <string_view>
#include <vector>

namespace fathom::router::jinja {

struct Signature {
  std::string_view name;
  // Names of parameters in their order, with a space between. "x?": may be left out; "*": any
  // further ones; "**": any further named ones; "/" at the end: none of them by name, as with most
  // methods of Python's strings.
  std::string_view parameters;
};

// The row of this name in a table whose rows have a `signature`; nullptr: it has none.
template <typename Table>
auto FindRow(const Table& rows, std::string_view name) -> decltype(std::data(rows)) {
  for (const auto& row : rows) {
    if (row.signature.name == name) return &row;
  }
  return nullptr;
}

// What is wrong with a call that has so many positional arguments and these named ones; empty:
// nothing. Begins with "takes" or "has", so that the caller may write its subject in front.
std::string CallError(const Signature& signature, size_t positional,
                      const std::vector<std::string_view>& named);

}  // namespace fathom::router::jinja
