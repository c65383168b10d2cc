// SPDX-License-Identifier: Apache-2.0
//
// JSON text (RFC 8259), written front to back.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

namespace nibble::bench {

class Json {
 public:
  Json& BeginObject() { return Begin('{'); }
  Json& EndObject() { return End('}'); }
  Json& BeginArray() { return Begin('['); }
  Json& EndArray() { return End(']'); }

  Json& Key(const std::string& name) {
    Separate();
    Quote(name);
    text_ += ": ";
    after_key_ = true;
    return *this;
  }

  Json& Value(const std::string& value) {
    Separate();
    Quote(value);
    return *this;
  }
  Json& Value(const char* value) { return Value(std::string(value)); }
  Json& Value(bool value) { return Raw(value ? "true" : "false"); }
  Json& Value(int value) { return Raw(std::to_string(value)); }
  Json& Value(int64_t value) { return Raw(std::to_string(value)); }
  Json& Value(double value) {
    if (!std::isfinite(value)) return Null();
    char digits[32];
    std::snprintf(digits, sizeof digits, "%.9g", value);
    return Raw(digits);
  }
  Json& Null() { return Raw("null"); }

  template <class T>
  Json& Field(const std::string& name, const T& value) {
    return Key(name).Value(value);
  }

  const std::string& text() const { return text_; }

 private:
  Json& Begin(char bracket) {
    Separate();
    text_ += bracket;
    first_.push_back(true);
    return *this;
  }

  Json& End(char bracket) {
    const bool empty = first_.back();
    first_.pop_back();
    if (!empty) NewLine(first_.size() + 1);
    text_ += bracket;
    return *this;
  }

  Json& Raw(const std::string& value) {
    Separate();
    text_ += value;
    return *this;
  }

  // What stands between the last thing written and the next.
  void Separate() {
    if (after_key_) {
      after_key_ = false;
    } else if (!first_.empty()) {
      if (!first_.back()) text_ += ',';
      first_.back() = false;
      NewLine(first_.size());
    }
  }

  // Before something in, or the end of, brackets of that level.
  void NewLine(size_t level) {
    if (level > kIndented) {
      text_ += ' ';
      return;
    }
    text_ += '\n';
    text_.append(2 * first_.size(), ' ');
  }

  void Quote(const std::string& value) {
    text_ += '"';
    for (const char c : value) {
      if (c == '"' || c == '\\') {
        text_ += '\\';
        text_ += c;
      } else if (static_cast<unsigned char>(c) < 0x20) {
        char code[8];
        std::snprintf(code, sizeof code, "\\u%04x", c);
        text_ += code;
      } else {
        text_ += c;
      }
    }
    text_ += '"';
  }

  // Levels that stand on lines of their own; deeper ones stay on one line, one result each.
  static constexpr size_t kIndented = 2;

  std::string text_;
  std::vector<bool> first_;
  bool after_key_ = false;
};

}  // namespace nibble::bench
