import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { ReactorProvider } from "reactor-presence/react";
import { ChatScreen } from "./ChatScreen.jsx";
import { AlertBox, useRoute } from "./platform.jsx";
import { RoomList } from "./RoomList.jsx";
import "./style.css";

const asked = new URLSearchParams(location.search);
const userId = asked.get("user") ?? "ann";

function App() {
  const roomId = useRoute();
  return (
    <>
      {roomId ? <ChatScreen key={roomId} roomId={roomId} userId={userId} /> : <RoomList userId={userId} />}
      <AlertBox />
    </>
  );
}

createRoot(document.getElementById("root")).render(
  <StrictMode>
    <ReactorProvider url={asked.get("server")}>
      <App />
    </ReactorProvider>
  </StrictMode>,
);
