// text/json_scanner.h: checks the JSON text of one object while it comes, byte by byte, and says
// where the members of the outermost object are. It keeps no text and makes no values. Pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace fathom {

class JsonScanner {
 public:
  enum class Status : uint8_t {
    kMore,    // The text so far may become an object.
    kWhole,   // The text so far is an object, with white space around it.
    kBroken,  // The text so far begins no object, or one that is nested deeper than kDepthMax.
  };
  static constexpr size_t kDepthMax = 256;

  // A member of the outermost object, as offsets from the first byte of all.
  struct Member {
    size_t key_begin = 0, key_end = 0;  // The key without its quotes, as it is spelled.
    size_t value_begin = 0;             // 0: it has not begun.
    size_t value_end = 0;               // 0: it is not whole.
    char value_first = '\0';            // The first byte of the value.
  };

  // Takes the next byte. After kBroken it stays broken.
  Status Next(char c);
  Status status() const { return status_; }
  const std::vector<Member>& members() const { return members_; }

 private:
  enum class Expect : uint8_t {
    kObject,
    kFirstKey,
    kKey,
    kColon,
    kFirstValue,
    kValue,
    kNext,
    kEnd
  };
  enum class Scalar : uint8_t { kNone, kString, kNumber, kWord };

  bool Take(char c);
  bool TakeString(char c);
  bool TakeNumber(char c);
  bool TakeWord(char c);
  bool BeginValue(char c);
  bool Open(char c);
  bool Close(char c);
  void EndValue(size_t end);

  Status status_ = Status::kMore;
  size_t offset_ = 0;  // Of the byte that is being taken.
  Expect expect_ = Expect::kObject;
  Scalar scalar_ = Scalar::kNone;
  bool is_key_ = false;   // The string is a key.
  bool escaped_ = false;  // The string's next byte follows a backslash.
  int hex_left_ = 0;      // Hexadecimal digits of \u that are to come.
  std::string word_;      // What is still to come of true, false or null.
  uint8_t number_ = 0;    // The place in a number; see TakeNumber.
  std::string open_;      // The brackets that are open.
  std::vector<Member> members_;
};

}  // namespace fathom
