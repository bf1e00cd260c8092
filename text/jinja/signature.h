// text/jinja/signature.h: the arguments that a filter, test, method or function accepts. A call
// that a template names directly is checked when the template is parsed (resolve.h), all other
// calls when they are evaluated. Pure.
#pragma once

#include <iterator>
#include <string>
#include <string_view>
#include <vector>

namespace fathom::jinja {

struct Signature {
  std::string_view name;
  // The names of the parameters in order, separated by spaces. "x?": may be left out. "*": any
  // further positional arguments. "**": any further named arguments. "/" at the end: no parameter
  // may be given by name, as in most methods of Python's strings.
  std::string_view parameters;
};

// The row with this name in a table whose rows have a `signature`; nullptr: none.
template <typename Table>
auto FindRow(const Table& rows, std::string_view name) -> decltype(std::data(rows)) {
  for (const auto& row : rows) {
    if (row.signature.name == name) return &row;
  }
  return nullptr;
}

// What is wrong with a call that has this many positional arguments and these named ones; empty:
// nothing. The text begins with "takes" or "has", so that the caller can put the subject before it.
std::string CallError(const Signature& signature, size_t positional,
                      const std::vector<std::string_view>& named);

}  // namespace fathom::jinja
