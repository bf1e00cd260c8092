#include "text/jinja/json.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

namespace fathom::jinja {
namespace {

// The escape of a character in a JSON string; empty: the character needs none.
std::string Escape(std::string_view point, bool ensure_ascii) {
  static constexpr std::string_view kFrom = "\"\\\n\r\t\b\f", kTo = "\"\\nrtbf";
  if (const size_t known = kFrom.find(point[0]); known != kFrom.npos) return {'\\', kTo[known]};
  const uint32_t code = CodePointAt(point);
  if (code >= 0x20 && (code < 0x7F || !ensure_ascii)) return {};
  if (code < 0x10000) return fmt::format("\\u{:04x}", code);
  return fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + ((code - 0x10000) >> 10),
                     0xDC00 + ((code - 0x10000) & 0x3FF));
}

// json.dumps spells non-finite numbers differently from repr.
std::string JsonFloat(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value < 0 ? "-Infinity" : "Infinity";
  return FloatRepr(value);
}

class Writer {
 public:
  Writer(const JsonFormat& format, int64_t bytes_max) : format_(format), bytes_max_(bytes_max) {}

  Str Run(const Value& value) {
    Write(value, 0);
    return out_.Take();
  }

 private:
  void NewLine(int level) {
    if (!format_.indent) return;
    out_.Append('\n');
    for (int i = 0; i < level; ++i) out_.Append(*format_.indent);
  }

  void String(const Str& str) {
    out_.Append('"');
    str.ForEachRun([&](std::string_view run, bool literal) {
      for (const std::string_view point : CodePoints(run)) {
        const std::string escaped = Escape(point, format_.ensure_ascii);
        out_.AppendAs(escaped.empty() ? point : std::string_view(escaped), literal);
      }
    });
    out_.Append('"');
  }

  void Key(const Value& key) {
    if (key.is_string()) return String(*key.string());
    if (!key.is_none() && !key.is_number()) {
      throw TemplateError(fmt::format("tojson: a {} cannot be a key of JSON", key.TypeName()));
    }
    out_.Append('"');
    Write(key, 0);
    out_.Append('"');
  }

  // Writes the items of a list or map; `write` gets the index of each.
  template <class WriteItem>
  void Items(size_t count, int level, const char* brackets, const WriteItem& write) {
    out_.Append(brackets[0]);
    for (size_t i = 0; i < count; ++i) {
      if (i > 0) out_.Append(format_.item_separator);
      NewLine(level + 1);
      write(i);
      if (static_cast<int64_t>(out_.size()) > bytes_max_)
        throw TemplateError("tojson: the result is too long");
    }
    if (count > 0) NewLine(level);
    out_.Append(brackets[1]);
  }

  void Write(const Value& value, int level) {
    if (value.is_none()) return out_.Append("null");
    if (value.is_bool()) return out_.Append(value.AsInt() != 0 ? "true" : "false");
    if (value.is_float()) return out_.Append(JsonFloat(value.AsDouble()));
    if (value.is_number()) return out_.Append(value.Repr());
    if (const Str* s = value.string()) return String(*s);
    if (const List* l = value.list()) {
      return Items(l->size(), level, "[]", [&](size_t i) { Write((*l)[i], level + 1); });
    }
    const Map* map = value.map();
    if (map == nullptr) {
      throw TemplateError(fmt::format("tojson: a {} has no JSON form", value.TypeName()));
    }
    std::vector<const Map::value_type*> entries;
    for (const auto& entry : *map) entries.push_back(&entry);
    if (format_.sort_keys) {
      std::stable_sort(entries.begin(), entries.end(), [](const auto* left, const auto* right) {
        return Order(left->first, right->first) < 0;
      });
    }
    Items(entries.size(), level, "{}", [&](size_t i) {
      Key(entries[i]->first);
      out_.Append(format_.key_separator);
      Write(entries[i]->second, level + 1);
    });
  }

  const JsonFormat& format_;
  const int64_t bytes_max_;
  StrBuilder out_;
};

// Makes values from nlohmann's events, which include the digits of every number.
class Reader : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit Reader(bool literal) : literal_(literal) {}

  Value Take() { return std::move(result_); }

  bool null() override { return Add(None{}); }
  bool boolean(bool value) override { return Add(value); }
  bool number_integer(int64_t value) override { return Add(value); }
  bool number_unsigned(uint64_t value) override {
    if (value > INT64_MAX) return Add(BigInt{std::to_string(value)});
    return Add(static_cast<int64_t>(value));
  }
  bool number_float(double value, const std::string& text) override {
    // Integers that are too large for 64 bits also come here.
    if (text.find_first_of(".eE") == text.npos) return Add(BigInt{text});
    return Add(value);
  }
  bool string(std::string& value) override { return Add(Text(value)); }
  bool binary(nlohmann::json::binary_t& /*value*/) override { return false; }

  bool start_object(size_t /*size*/) override { return Open(true); }
  bool start_array(size_t /*size*/) override { return Open(false); }
  bool key(std::string& value) override {
    open_.back().key = Text(value);
    return true;
  }
  bool end_object() override { return Close(Value(open_.back().map.Take())); }
  bool end_array() override { return Close(Value(std::move(open_.back().list))); }
  bool parse_error(size_t /*at*/, const std::string& /*token*/,
                   const nlohmann::detail::exception& error) override {
    throw JsonError(error.what(), /*deep=*/false);
  }

 private:
  struct Container {
    bool object;
    List list = {};
    MapBuilder map = {};
    Value key = {};
  };

  Value Text(const std::string& text) const {
    return literal_ ? Value(Str::Literal(text)) : Value(text);
  }

  bool Add(Value value) {
    if (open_.empty()) {
      result_ = std::move(value);
    } else if (open_.back().object) {
      open_.back().map.Set(std::move(open_.back().key), std::move(value));
    } else {
      open_.back().list.push_back(std::move(value));
    }
    return true;
  }

  bool Open(bool object) {
    if (open_.size() >= static_cast<size_t>(kJsonDepthMax)) {
      throw JsonError(fmt::format("nested deeper than {} levels", kJsonDepthMax), /*deep=*/true);
    }
    open_.push_back({object});
    return true;
  }

  bool Close(Value value) {
    open_.pop_back();
    return Add(std::move(value));
  }

  const bool literal_;
  std::vector<Container> open_;
  Value result_;
};

}  // namespace

Str WriteJson(const Value& value, const JsonFormat& format, int64_t bytes_max) {
  return Writer(format, bytes_max).Run(value);
}

Value ReadJson(std::string_view text, bool literal) {
  Reader reader(literal);
  try {
    nlohmann::json::sax_parse(text.begin(), text.end(), &reader);
  } catch (const nlohmann::json::exception& error) {
    throw JsonError(error.what(), /*deep=*/false);
  }
  return reader.Take();
}

}  // namespace fathom::jinja
