// text/jinja/value.h: a value as a chat template sees it, with Python's meaning of truth,
// equality, printing and JSON. Strings are UTF-8 and know which of their bytes are a client's
// (str.h); lengths and indices count code points. Lists and maps are shared, as in Python,
// and never change after they were made (a namespace is the one mutable thing). Values nest no
// deeper than kValueDepthMax, so that what walks them may recurse. Errors inside the template
// engine are thrown as TemplateError and become a Status in chat_template.cc.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "text/jinja/str.h"

namespace fathom::router::jinja {

struct TemplateError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class Value;
using List = std::vector<Value>;
// In insertion order: it is part of a rendering. Keys are strings so far; as values they keep their
// literal bytes.
using Map = std::vector<std::pair<Value, Value>>;
using Namespace = std::map<std::string, Value, std::less<>>;

struct Undefined {
  std::string name;  // For messages: "'message' is undefined".
};
struct None {};

inline constexpr int kValueDepthMax = 200;

// A method bound to its object ("x".split) or a global function, by name; called by the evaluator.
struct Callable {
  std::string name;
  std::shared_ptr<const Value> self;  // Null: a global.
};

class Value {
 public:
  // Implicit on purpose: a value is written as what it is.
  // NOLINTBEGIN(google-explicit-constructor)
  Value() : data_(Undefined{}) {}
  Value(Undefined v) : data_(std::move(v)) {}
  Value(None v) : data_(v) {}
  Value(bool v) : data_(v) {}
  Value(int64_t v) : data_(v) {}
  Value(double v) : data_(v) {}
  Value(Str v) : data_(std::move(v)) {}
  Value(std::string v) : data_(Str(std::move(v))) {}
  Value(const char* v) : data_(Str(v)) {}
  // These throw TemplateError where values would nest too deep.
  Value(List v);
  Value(Map v);
  Value(Callable v);
  // NOLINTEND(google-explicit-constructor)
  explicit Value(std::shared_ptr<Namespace> v) : data_(std::move(v)) {}

  bool is_undefined() const { return std::holds_alternative<Undefined>(data_); }
  bool is_none() const { return std::holds_alternative<None>(data_); }
  bool is_bool() const { return std::holds_alternative<bool>(data_); }
  bool is_int() const { return std::holds_alternative<int64_t>(data_); }
  bool is_float() const { return std::holds_alternative<double>(data_); }
  bool is_number() const { return is_bool() || is_int() || is_float(); }
  bool is_string() const { return std::holds_alternative<Str>(data_); }
  const Str* string() const { return std::get_if<Str>(&data_); }
  const List* list() const { return Pointee<List>(); }
  const Map* map() const { return Pointee<Map>(); }
  Namespace* name_space() const {
    const auto* shared = std::get_if<std::shared_ptr<Namespace>>(&data_);
    return shared != nullptr ? shared->get() : nullptr;
  }
  const Callable* callable() const { return Pointee<Callable>(); }
  const Undefined* undefined() const { return std::get_if<Undefined>(&data_); }

  // bool counts as 0 or 1, as in Python. REQUIRES: is_number().
  double AsDouble() const;
  // REQUIRES: is_bool() or is_int().
  int64_t AsInt() const;

  bool Truthy() const;
  bool operator==(const Value& other) const;
  // What {{ value }} prints: "" for undefined, "None", "True", a list as Python's repr.
  Str Text() const;
  // json.dumps(value, ensure_ascii=False, indent=indent); indent < 0: one line.
  Str Json(int indent) const;
  // "string", "list", ... for messages.
  std::string TypeName() const;

  // The entry of a map or namespace, or nullptr.
  const Value* Find(std::string_view key) const;
  // Likewise, where a key of a map may be any value that equals `key`.
  const Value* FindKey(const Value& key) const;

 private:
  // A container and how deep what it holds nests.
  template <class T>
  struct Box {
    T items;
    int depth;
  };
  template <class T>
  const T* Pointee() const {
    const auto* shared = std::get_if<std::shared_ptr<const Box<T>>>(&data_);
    return shared != nullptr ? &(*shared)->items : nullptr;
  }
  template <class T>
  static std::shared_ptr<const Box<T>> MakeBox(T items, int depth);
  int Depth() const;
  void AppendRepr(StrBuilder* out) const;
  void AppendJson(int indent, int depth, StrBuilder* out) const;

  std::variant<Undefined, None, bool, int64_t, double, Str, std::shared_ptr<const Box<List>>,
               std::shared_ptr<const Box<Map>>, std::shared_ptr<Namespace>,
               std::shared_ptr<const Box<Callable>>>
      data_;
};

// Code points of valid UTF-8, each as its bytes.
std::vector<std::string_view> CodePoints(std::string_view text);
// str.isspace of the code point at text[0...]; `size` gets its length in bytes.
bool IsSpaceAt(std::string_view text, size_t* size);
// As Python's repr of a float: shortest digits that read back.
std::string FloatRepr(double value);

}  // namespace fathom::router::jinja
