/* For server/engine/llama/vocabulary.py: asks a function of llama.h for each of many tokens. From Python every call
 * costs as much as some hundred here, which adds up to a tenth of a second with 262k tokens.
 */
#include <cstdint>

#if defined(__GNUC__) && !defined(_WIN32)

extern "C" __attribute__((visibility("default"))) void dragoman_each(
    int32_t (*ask)(const void *, int32_t), const void * subject, int32_t count, int32_t * answers);

void dragoman_each(int32_t (*ask)(const void *, int32_t), const void * subject, int32_t count, int32_t * answers) {
    for (int32_t number = 0; number < count; number++) {
        answers[number] = ask(subject, number);
    }
}

#endif
