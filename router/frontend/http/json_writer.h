// router/frontend/http/json_writer.h: writes compact JSON into one text. It is on the path of every
// token of a stream, so it builds no tree. The caller is responsible for a sensible order of calls:
// a Key before each member of an object. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace fathom::router {

// Appends `text` in quotes. REQUIRES: `text` is UTF-8.
void AppendJsonString(std::string_view text, std::string* to);

class JsonWriter {
 public:
  JsonWriter& BeginObject() { return Open('{'); }
  JsonWriter& EndObject() { return Close('}'); }
  JsonWriter& BeginArray() { return Open('['); }
  JsonWriter& EndArray() { return Close(']'); }
  JsonWriter& Key(std::string_view name);
  // REQUIRES: UTF-8.
  JsonWriter& String(std::string_view text);
  JsonWriter& Int(int64_t number);
  // The shortest text that reads as the same float; a number that is not finite becomes -9999.
  JsonWriter& Real(float number);
  JsonWriter& Bool(bool value) { return Raw(value ? "true" : "false"); }
  JsonWriter& Null() { return Raw("null"); }
  // A value that is JSON already.
  JsonWriter& Raw(std::string_view json);

  const std::string& text() const { return text_; }
  std::string Take() { return std::move(text_); }

 private:
  JsonWriter& Open(char bracket);
  JsonWriter& Close(char bracket);
  void Comma();

  std::string text_;
  bool comma_ = false;  // A value stands before the next one.
};

}  // namespace fathom::router
