// text/jinja/value.h: a value of a chat template, with Python's meaning of truth, equality, order
// and printing (JSON: json.h). Strings are UTF-8 with a record of the bytes that come from a client
// (str.h); lengths and indices count code points. Lists and maps are shared, as in Python, and
// never change after they were made; only a namespace can change. Values nest at most
// kValueDepthMax deep and weigh at most kValueWeightMax, so code that visits them may recurse. The
// template engine throws errors as TemplateError, which chat_template.cc turns into a Status.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "text/jinja/str.h"

namespace fathom::jinja {

struct TemplateError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class Value;
using List = std::vector<Value>;
// In insertion order, which a rendering depends on. No two keys are equal (MapBuilder). Keys from a
// client keep their literal bytes.
using Map = std::vector<std::pair<Value, Value>>;
using Namespace = std::map<std::string, Value, std::less<>>;

struct Undefined {
  std::string name;  // For messages: "'message' is undefined".
};
struct None {};

// An integer beyond int64, which JSON may contain. It can be printed and compared, but not computed
// with.
struct BigInt {
  std::string digits;  // Decimal, after a "-" if negative; no leading zeros.
};

inline constexpr int kValueDepthMax = 200;
// The limit of the weight of a value: the bytes and values inside it, each counted as often as it
// occurs. A list that contains another list twice, which contains another list twice, and so on,
// takes little memory, but printing it would never end.
inline constexpr int64_t kValueWeightMax = int64_t{1} << 26;
// The indices of a map's entries by the hash of their keys.
using KeyIndex = std::unordered_multimap<size_t, size_t>;

struct Closure;  // A macro with the variables that it sees (eval.cc).

// A method bound to its object ("x".split), a macro, or a global function by its name. The
// evaluator calls it.
struct Callable {
  std::string name;
  std::shared_ptr<const Value> self = nullptr;       // For a method.
  std::shared_ptr<const Closure> closure = nullptr;  // For a macro.
};

class Value {
 public:
  // Implicit on purpose, so that code can pass a plain text or number as a value.
  // NOLINTBEGIN(google-explicit-constructor)
  Value() : data_(Undefined{}) {}
  Value(Undefined v) : data_(std::move(v)) {}
  Value(None v) : data_(v) {}
  Value(bool v) : data_(v) {}
  Value(int64_t v) : data_(v) {}
  Value(double v) : data_(v) {}
  Value(BigInt v) : data_(std::move(v)) {}
  Value(Str v) : data_(std::move(v)) {}
  Value(std::string v) : data_(Str(std::move(v))) {}
  Value(const char* v) : data_(Str(v)) {}
  // Throw TemplateError if the values would nest too deep or weigh too much.
  Value(List v);
  Value(Map v);
  Value(Callable v);
  // NOLINTEND(google-explicit-constructor)
  explicit Value(std::shared_ptr<Namespace> v) : data_(std::move(v)) {}
  // Python's tuple: a list that prints in parentheses and equals no list.
  static Value Tuple(List items);

  bool is_undefined() const { return std::holds_alternative<Undefined>(data_); }
  bool is_none() const { return std::holds_alternative<None>(data_); }
  bool is_bool() const { return std::holds_alternative<bool>(data_); }
  bool is_int() const { return std::holds_alternative<int64_t>(data_); }
  bool is_float() const { return std::holds_alternative<double>(data_); }
  const BigInt* big_int() const { return std::get_if<BigInt>(&data_); }
  bool is_number() const { return is_bool() || is_int() || is_float() || big_int() != nullptr; }
  bool is_string() const { return std::holds_alternative<Str>(data_); }
  const Str* string() const { return std::get_if<Str>(&data_); }
  const List* list() const { return Pointee<List>(); }  // A tuple is a list too.
  bool is_tuple() const;
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
  // The output of {{ value }}: "" for undefined, "None", "True", Python's repr for a list.
  Str Text() const;
  // Python's repr.
  Str Repr() const;
  // "string", "list", ... for messages.
  std::string TypeName() const;

  // The entry of a map or namespace, or nullptr.
  const Value* Find(std::string_view key) const { return FindKey(Value(std::string(key))); }
  const Value* FindKey(const Value& key) const;

 private:
  struct Extent {
    int depth = 0;
    int64_t weight = 0;
    // Adds `inner`, one of the contained values.
    void Add(const Extent& inner);
  };
  template <class T>
  struct Box {
    T items;
    Extent extent;
    bool tuple = false;
    KeyIndex index = {};  // For a large map.
  };
  template <class T>
  const T* Pointee() const {
    const auto* shared = std::get_if<std::shared_ptr<const Box<T>>>(&data_);
    return shared != nullptr ? &(*shared)->items : nullptr;
  }
  template <class T>
  static std::shared_ptr<Box<T>> MakeBox(T items, Extent extent);
  Extent ExtentOf() const;
  void AppendRepr(StrBuilder* out) const;

  std::variant<Undefined, None, bool, int64_t, double, BigInt, Str,
               std::shared_ptr<const Box<List>>, std::shared_ptr<const Box<Map>>,
               std::shared_ptr<Namespace>, std::shared_ptr<const Box<Callable>>>
      data_;
};

// Makes a map. Of equal keys, the first gives the place and the last gives the value, as in Python.
// Each entry takes constant time.
class MapBuilder {
 public:
  // Throws TemplateError for a key that Python cannot hash (a list, a map).
  void Set(Value key, Value value);
  bool Has(const Value& key) const;
  size_t size() const { return map_.size(); }
  Map Take();

 private:
  Map map_;
  KeyIndex index_;
};

// Less than 0, 0, or more than 0, as Python compares two numbers, strings, lists or tuples. Throws
// TemplateError for other pairs. Returns 0 for NaN, which has no order.
int Order(const Value& left, const Value& right);

// The code points of valid UTF-8, each as its bytes.
std::vector<std::string_view> CodePoints(std::string_view text);
// str.isspace of the code point at text[0...]; `size` gets its length in bytes.
bool IsSpaceAt(std::string_view text, size_t* size);
// The code point at text[0...]. REQUIRES: `text` is not empty.
uint32_t CodePointAt(std::string_view text);
void AppendUtf8(uint32_t code, std::string* out);
// Python's repr of a float: the shortest digits that give the same float again.
std::string FloatRepr(double value);

}  // namespace fathom::jinja
